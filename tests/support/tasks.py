"""Tasks for the worker processes of `tests/support/processes.py`. Each task returns a value that can be pickled."""

from __future__ import annotations

import functools
import io
import json
import time
from collections import Counter
from typing import Any

from django.contrib.auth import get_user_model
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client

from instaccess import audit
from instaccess.conf import conf
from instaccess.exceptions import InstAccessError
from instaccess.issuer import issuing
from instaccess.keys import lifecycle
from instaccess.keys import ring as keys_ring
from instaccess.models import Key
from instaccess.tokens import jose
from instaccess.web import refusals
from tests.support import key_texts, processes

URL = "/api/v1/inst_access_tokens"
ORIGIN = issuing.Origin(canvas_domain="canvas.example.edu", ip_address="192.0.2.7", user_agent="load/1.0")


# These tasks block or kill a process at a chosen function.


def meet_at(path: str) -> None:
    """Make the next call of the function with this import path wait until all workers have called the function."""

    def wrap(original: Any) -> Any:
        waiting = [True]

        @functools.wraps(original)
        def blocked(*args: Any, **kwargs: Any) -> Any:
            if waiting:
                waiting.clear()
                processes.meet()
            return original(*args, **kwargs)

        return blocked

    processes.patch(path, wrap)


def meet() -> None:
    processes.meet()


def die_before(path: str) -> None:
    """Kill this process instead of the next call of the function with this import path."""
    processes.patch(path, lambda original: lambda *args, **kwargs: processes.kill_this_process())


def die_after(path: str) -> None:
    """Kill this process when the next call of the function with this import path has returned."""

    def wrap(original: Any) -> Any:
        def call_and_die(*args: Any, **kwargs: Any) -> None:
            original(*args, **kwargs)
            processes.kill_this_process()

        return call_and_die

    processes.patch(path, wrap)


def die_after_statement(number: int) -> None:
    """Kill this process after `number` further SQL statements. COMMIT counts as a statement."""
    left = [number]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            processes.kill_this_process()

    def wrapper(execute: Any, *args: Any) -> Any:
        result = execute(*args)
        count()
        return result

    connection.execute_wrappers.append(wrapper)
    commit = connection._commit

    def commit_and_count() -> None:
        commit()
        count()

    connection._commit = commit_and_count


# These tasks do what an operator does.


def init() -> None:
    """Run `manage.py instaccess_init`."""
    call_command("instaccess_init", stdout=io.StringIO())


def manage_keys(*args: str) -> Any:
    """Run `manage.py instaccess_keys … --json`. Returns the document that the command prints."""
    out = io.StringIO()
    call_command("instaccess_keys", *args, "--json", stdout=out)
    return json.loads(out.getvalue())


def manage_tokens(*args: str) -> Any:
    """Run `manage.py instaccess_tokens … --json`. Returns the document that the command prints."""
    out = io.StringIO()
    call_command("instaccess_tokens", *args, "--json", stdout=out)
    return json.loads(out.getvalue())


def rotate(use: str, force: bool = True, expected_current: str | None = None) -> dict[str, Any]:
    done = lifecycle.rotate(Key.Use(use), force=force, expected_current=expected_current)
    return {"activated": done.activated and done.activated.kid, "lost_race": done.lost_race}


def revoke(kid: str) -> int:
    return lifecycle.revoke(kid, reason="stolen").tokens


def revoke_token(pk: int) -> int:
    """Revoke the token of the audit row with this primary key. Returns the number of revoked tokens."""
    tokens = audit.revocable_tokens().filter(pk=pk)
    return audit.revoke(tokens, keks=conf.key_encryption_keys, reason="lost")


def begin() -> None:
    """Begin a transaction, which the task `commit` commits."""
    transaction.set_autocommit(False)


def commit() -> None:
    """Commit the transaction that the task `begin` began."""
    transaction.commit()
    transaction.set_autocommit(True)


def import_public(data: str, use: str) -> str:
    """Import a public key. Returns the kid or the error message."""
    try:
        return key_texts.import_key(data, use=Key.Use(use)).kid
    except InstAccessError as error:
        return str(error)


def attempt(*args: str) -> str:
    """Run a `manage.py` command. Returns the name of the exception, or an empty string if the command succeeds."""
    try:
        call_command(*args, stdout=io.StringIO())
    except Exception as error:
        return type(error).__name__
    return ""


def database_check() -> list[str]:
    """Run the system checks with the database. Returns the ids of the messages of this package."""
    return [message.id or "" for message in run_checks(databases=["default"]) if "instaccess" in (message.id or "")]


# These tasks do what a server process does.


def issue(user_pk: int) -> str:
    return issuing.issue(user=get_user_model().objects.get(pk=user_pk), origin=ORIGIN, now=time.time())[1]


def post(access_token: str) -> tuple[int, str]:
    """Request a token from the issuing endpoint. Returns the HTTP status and the token.

    If the endpoint returns no token, the second value is an empty string.
    """
    response = Client(raise_request_exception=False).post(URL, headers={"Authorization": f"Bearer {access_token}"})
    return response.status_code, response.json().get("token", "")


def accept(token: str) -> str:
    """Decrypt and verify a token with this process's keys.

    Returns the reason code of the refusal, or an empty string if the token is valid.
    """
    try:
        ring = keys_ring.current_ring()
        jose.verify(jose.decrypt(token, ring.decryption_keys())[0], ring.verification_keys())
    except InstAccessError as error:
        return error.code
    return ""


def jti(token: str) -> str:
    ring = keys_ring.current_ring()
    claims, _ = jose.verify(jose.decrypt(token, ring.decryption_keys())[0], ring.verification_keys())
    return str(claims["jti"])


def current_kids() -> dict[str, str]:
    """Return the kids of the keys with which this process signs and encrypts, by use."""
    ring = keys_ring.current_ring()
    return {"sig": ring.signing_key().kid, "enc": ring.encryption_key().kid}


def published_kids() -> list[str]:
    return [member["kid"] for member in keys_ring.current_ring().published()]


def keep_issuing(user_pk: int) -> dict[str, int]:
    """Issue, decrypt and verify tokens until the test stops the task. Returns the number of each outcome."""
    user = get_user_model().objects.get(pk=user_pk)
    outcome: Counter[str] = Counter(issued=0)
    while not processes.stop_requested():
        try:
            token = issuing.issue(user=user, origin=ORIGIN, now=time.time())[1]
            ring = keys_ring.current_ring()
            jose.verify(jose.decrypt(token, ring.decryption_keys())[0], ring.verification_keys())
        except Exception as error:
            outcome[f"{type(error).__name__}: {error}"] += 1
        else:
            outcome["issued"] += 1
    return dict(outcome)


def refuse(*kinds: str, times: int = 1) -> None:
    """Count `times` refusals for each client id in `kinds`."""
    for _ in range(times):
        for client_id in kinds:
            refusals.counter.count("gateway", "revoked", client_id=client_id)


def write_refusals() -> int:
    return refusals.counter.flush()
