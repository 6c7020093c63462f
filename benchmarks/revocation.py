"""A benchmark of revocations on PostgreSQL: of one token with a long deny list, and of all tokens of a user.

    python -m benchmarks.revocation [--listed 300000] [--tokens-of-user 100000] [--revocation-rounds 10]

Two databases differ only in the number of revoked tokens. Two gateways, one on each database, are measured in turn
while one token is revoked per second.
"""

# ruff: noqa: PLC0415  (Functions contain imports, because Django is set up after the database is created.)
from __future__ import annotations

import argparse
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import requests

from . import load, sections, timing
from .serve import Server
from .stage import psql, stage

VERIFY = "/internal/gateway/verify"
REVOCATIONS = "/internal/services/revocations"
TOKENS = 20
"""The number of different tokens in the requests to the gateways."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=1, help="seconds of load per gateway and round")
    parser.add_argument("--revocation-rounds", type=int, default=10)
    parser.add_argument("--listed", type=int, default=300_000, help="number of revoked tokens on the long deny list")
    parser.add_argument("--tokens-of-user", type=int, default=100_000, help="number of live tokens of one user")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with stage("postgresql") as staged:
        from instaccess import trust

        # Load the deny list in this thread, because a background thread would keep its connection to the previous
        # database.
        trust.Refreshed.in_background = False
        bearers = tuple(f"Bearer {_issue()}" for _ in range(TOKENS))
        empty = os.environ["PGDATABASE"]
        with _copy(empty, options.listed) as full, ExitStack() as stack:
            up = {
                name: stack.enter_context(Server(staged.folder / f"{name}.log", env={"PGDATABASE": name}))
                for name in (empty, full)
            }
            p95 = _latencies(up, bearers, options)
            _use(full)
            cpu = _one_more(up[full], options.revocation_rounds * 10)
            _use(empty)
            all_tokens = _all_tokens_of_a_user(up[empty], options.tokens_of_user)
    return {
        "listed tokens": options.listed,
        "one more revocation, ms of CPU": cpu,
        "p95, ms": {"empty list": timing.spread(p95[empty]), "long list": timing.spread(p95[full])},
        "p95, ratio to an empty list": timing.ratios(p95[full], p95[empty]),
        "all tokens of a user": all_tokens,
    }


@contextmanager
def _copy(base: str, listed: int) -> Iterator[str]:
    """Create a copy of the database `base` with `listed` revoked tokens. Yields the name of the copy."""
    from django.db import connection

    name = f"{base}_listed"
    connection.close()
    try:
        psql(f"CREATE DATABASE {name} TEMPLATE {base}")
        psql(
            # Use an existing row for the columns that the INSERT below doesn't set.
            "CREATE TEMPORARY TABLE example AS SELECT * FROM instaccess_issuedtoken LIMIT 1",
            "INSERT INTO instaccess_issuedtoken SELECT listed.* FROM example,"
            f" generate_series(1, {listed}) AS n, LATERAL jsonb_populate_record(NULL::instaccess_issuedtoken,"
            " to_jsonb(example) || jsonb_build_object('id', n, 'jti', gen_random_uuid(), 'user_uuid',"
            " gen_random_uuid(), 'revoked_at', now() - n * interval '1 millisecond')) AS listed",
            "VACUUM ANALYZE",
            "CHECKPOINT",
            name=name,
        )
        yield name
    finally:
        connection.close()
        psql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _use(name: str) -> None:
    """Connect this process to the database `name`."""
    from django.db import connection

    connection.close()
    connection.settings_dict["NAME"] = name


def _issue(user: Any = None) -> str:
    """Issue and return a token for a user, by default the first user."""
    from django.contrib.auth import get_user_model

    from instaccess.issuer import issuing

    user = user or get_user_model().objects.select_related("instaccess_identity").first()
    origin = issuing.Origin(canvas_domain="canvas.example.edu", ip_address="192.0.2.7", user_agent="benchmark")
    return issuing.issue(user=user, origin=origin, now=time.time())[1]


def _revoke_one() -> None:
    """Issue a token and revoke the new token."""
    from instaccess import audit, keys

    _issue()
    latest = audit.revocable_tokens().order_by("-pk").values_list("pk", flat=True)[:1]
    tokens = audit.revocable_tokens().filter(pk__in=list(latest))
    assert audit.revoke(tokens, keks=keys.keks_for_revocation(), reason="benchmark") == 1


@contextmanager
def _revoking() -> Iterator[None]:
    """Revoke one token per second in another thread, until the `with` block ends."""
    stop = threading.Event()

    def work() -> None:
        from django.db import connection

        while not stop.wait(1):
            _revoke_one()
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _latencies(
    up: dict[str, Server], bearers: tuple[str, ...], options: argparse.Namespace
) -> dict[str, list[float]]:
    """Return the 95th percentile of the latency in each round, in milliseconds, by name of the gateway."""
    p95: dict[str, list[float]] = {name: [] for name in up}
    warm_up = 1
    for number in range(warm_up + options.revocation_rounds):
        order = list(up.items())
        for name, server in reversed(order) if number % 2 else order:
            _use(name)
            with _revoking():
                measured = load.drive(load.Request("GET", server.url + VERIFY, bearers), seconds=options.seconds)
            if number >= warm_up:
                p95[name].append(measured.p95)
    return p95


def _one_more(server: Server, rounds: int) -> dict[str, Any]:
    """Return the CPU time of a revocation if the deny list is already long, at the issuer and at a gateway."""
    from django.test import RequestFactory, override_settings

    from instaccess.conf import conf
    from instaccess.issuer import internal_views
    from instaccess.trust import denylist

    factory, secret = RequestFactory(), conf.service_secrets[0]
    by_url = override_settings(INSTACCESS={**_settings(), "DENY_LIST": server.url + REVOCATIONS})
    held = denylist.read_database()
    with by_url:
        remote = denylist._read(denylist._read_url, None)
    times: dict[str, list[float]] = {"issuer": [], "gateway, database": [], "gateway, URL": []}
    for _ in range(rounds):
        request = factory.get(REVOCATIONS, {"since": held.cursor}, headers={"Authorization": f"Bearer {secret}"})
        issuer = _cpu(_revoke_one) + _cpu(lambda request=request: internal_views.revocations(request))
        times["issuer"].append(issuer)
        times["gateway, database"].append(_cpu(lambda: denylist._read(denylist._read_table, held)))
        with by_url:
            times["gateway, URL"].append(_cpu(lambda: denylist._read(denylist._read_url, remote)))
    assert len(held) == len(remote) >= rounds
    return {name: timing.spread(values) for name, values in times.items()}


def _settings() -> dict[str, Any]:
    from django.conf import settings

    return dict(settings.INSTACCESS)


def _cpu(run: Callable[[], Any]) -> float:
    """Call a function. Returns the CPU time of the call, in milliseconds."""
    start = time.process_time()
    run()
    return (time.process_time() - start) * 1000


def _all_tokens_of_a_user(server: Server, count: int) -> dict[str, Any]:
    """Revoke all tokens of a user.

    Returns three times in seconds: the duration of the revocation, the duration of a plain UPDATE, and the time from
    the start of the revocation until a gateway refuses a token of the user.
    """
    from django.contrib.auth import get_user_model
    from django.db import transaction
    from django.utils import timezone

    from instaccess import audit, keys, users

    victim = get_user_model().objects.last()
    token = _issue(victim)
    assert _status(server, token) == 204
    _add_live_tokens(victim, count)
    tokens = audit.revocable_tokens().filter(audit.filter_by_user(victim.username))
    psql("VACUUM ANALYZE", name=os.environ["PGDATABASE"])
    start = time.perf_counter()
    with transaction.atomic():
        tokens.update(revoked_at=timezone.now(), revoked_by="x", revocation_reason="x")
        plain = time.perf_counter() - start
        transaction.set_rollback(True)
    psql("VACUUM ANALYZE", "CHECKPOINT", name=os.environ["PGDATABASE"])
    in_force: list[float] = []
    start = time.perf_counter()
    # A daemon, so that the process can end if the revocation fails.
    watcher = threading.Thread(target=_watch, args=(server, token, start, in_force), daemon=True)
    watcher.start()
    revoked = audit.revoke(
        tokens,
        keks=keys.keks_for_revocation(),
        reason="benchmark",
        scopes=[audit.Scope.user(users.user_uuid(victim))],
    )
    took = time.perf_counter() - start
    watcher.join()
    assert revoked == count + 1
    return {
        "tokens": count,
        "plain UPDATE, s": round(plain, 2),
        "revoke, s": round(took, 2),
        "ratio to a plain UPDATE": round(took / plain, 2),
        "in force, s": round(in_force[0], 2),
    }


def _watch(server: Server, token: str, start: float, in_force: list[float]) -> None:
    while _status(server, token) == 204:
        time.sleep(0.05)
    in_force.append(time.perf_counter() - start)


def _status(server: Server, token: str) -> int:
    return requests.get(server.url + VERIFY, headers={"Authorization": f"Bearer {token}"}, timeout=30).status_code


def _add_live_tokens(user: Any, count: int) -> None:
    """Insert `count` audit rows for live tokens of a user, with valid HMACs."""
    from django.utils import timezone

    from instaccess import audit, users
    from instaccess.audit import row_ids
    from instaccess.conf import conf
    from instaccess.models import IssuedToken

    now, user_uuid = timezone.now(), users.user_uuid(user)

    def build(number: int) -> IssuedToken:
        jti, issued_at = uuid.uuid4(), now - timedelta(seconds=number % 3000)
        row = IssuedToken(
            pk=row_ids.row_id(issued_at, jti),
            jti=jti,
            user=user,
            user_uuid=user_uuid,
            client_id="c",
            account_uuid="a",
            canvas_domain="canvas.example.edu",
            signing_kid="s" * 43,
            encryption_kid="e" * 43,
            ip_address="192.0.2.7",
            user_agent="benchmark",
            issued_at=issued_at,
            expires_at=issued_at + timedelta(hours=1),
        )
        row.mac = audit.authenticate(audit.canonical_bytes(row), conf.key_encryption_keys)
        return row

    for start in range(0, count, 2000):
        IssuedToken.objects.bulk_create([build(number) for number in range(start, min(start + 2000, count))])


def show(result: dict[str, Any]) -> str:
    rows = [
        [f"one more revocation, {name}, ms of CPU", timing.ranged(each)]
        for name, each in result["one more revocation, ms of CPU"].items()
    ]
    rows += [[f"p95 of a gateway, {name}, ms", timing.ranged(each)] for name, each in result["p95, ms"].items()]
    rows.append(["p95, ratio to an empty list", timing.ranged(result["p95, ratio to an empty list"])])
    user = result["all tokens of a user"]
    rows += [[f"all {user['tokens']:,} tokens of a user: {name}", user[name]] for name in user if name != "tokens"]
    title = f"Revocations on PostgreSQL, with {result['listed tokens']:,} revoked tokens on the deny list"
    return timing.table(title, ["", ""], rows)


if __name__ == "__main__":
    sections.main(__doc__, arguments, measure, show)
