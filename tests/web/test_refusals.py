"""Counts of refusals: who counts what, when it is written, and what a flood costs."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from django.core.wsgi import get_wsgi_application
from django.db import OperationalError, connection, transaction
from django.db.models import Sum
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

import instaccess
from instaccess import exceptions, forward_auth, issuer, keyring, refusal_table, refusals
from instaccess.models import IssuedToken, RefusalCount, UserIdentity
from tests.conftest import ISSUE_URL
from tests.gateway.test_views import by_the_wire_of_asgi
from tests.support import processes, tasks
from tests.support.clocks import Clock
from tests.support.processes import Crew, KilledError, together
from tests.support.tokens import Makes, claims

pytestmark = pytest.mark.django_db

GATEWAY_URL = "/internal/gateway/verify"
NOW = datetime(2026, 12, 1, 12, 30, tzinfo=UTC)
HOUR = NOW.replace(minute=0)
PACKAGE = Path(instaccess.__file__).parent
THE_WAY_OF_A_REQUEST = [
    *(
        "exceptions",
        "claims",
        "jose",
        "compact",
        "sealing",
        "keyring",
        "keysource",
        "denylist",
        "snapshot",
        "fetch",
        "identity",
    ),
    *("issuer", "gateway", "canvas", "throttling", "oauth", "views", "forward_auth"),
]
REAL_TRANSACTIONS = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def fresh_gateway(initial_keys: Any) -> Iterator[None]:
    forward_auth.forget()
    yield
    forward_auth.forget()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that the writing goes by."""
    clock = Clock(frozen=True)
    monkeypatch.setattr(refusals, "time", SimpleNamespace(monotonic=clock, time=time.time))
    refusals.forget()
    return clock


@pytest.fixture
def due(clock: Clock) -> Clock:
    """The next request that ends writes."""
    clock.pass_(refusals.INTERVAL)
    return clock


def ask(bearer: str | None = None, **headers: str) -> int:
    """The status of the gateway's answer."""
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    return Client().get(GATEWAY_URL, headers=headers).status_code


def written() -> dict[tuple[str, ...], int]:
    """The table: counts by role, reason, client and user."""
    names = ("role", "reason", "client_id", "user_uuid")
    return {tuple(row[:4]): row[4] for row in RefusalCount.objects.values_list(*names, "count")}


def counted() -> dict[tuple[str, ...], int]:
    """What has been counted so far: written, and read."""
    refusals.flush()
    return written()


def total() -> int:
    return RefusalCount.objects.aggregate(total=Sum("count", default=0))["total"]


class Statements:
    """Execute wrapper: what is said to the database about counts; it can be told to refuse it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.failing = False

    def __call__(self, execute: Any, sql: str, params: Any, many: Any, context: Any) -> Any:
        if "refusalcount" in sql:
            self.seen.append(sql.partition(" ")[0])
            if self.failing:
                # A real error: PostgreSQL then refuses all that follows in a transaction.
                execute("SELECT nothing FROM nowhere", (), False, context)
        return execute(sql, params, many, context)


@pytest.fixture
def statements() -> Iterator[Statements]:
    statements = Statements()
    with connection.execute_wrapper(statements):
        yield statements


class TestTheIssuer:
    def test_counts_what_it_refuses_by_reason(self, post, client):
        post()
        post("nobody's")
        post("nobody's")
        client.get(ISSUE_URL)

        assert counted() == {
            ("issuer", "no_credentials", "", ""): 1,
            ("issuer", "unknown_token", "", ""): 2,
            ("issuer", "method", "", ""): 1,
        }

    def test_counts_whom_by_client_and_uuid_where_both_came_with_the_access_token(
        self, post, make_access_token, user
    ):
        identity = UserIdentity.objects.create(user=user)
        access_token = make_access_token(scope="read")
        post(access_token)

        client_id = access_token.application.client_id
        assert counted() == {("issuer", "insufficient_scope", client_id, str(identity.uuid)): 1}

    def test_makes_no_uuid_for_that(self, post, make_access_token):
        access_token = make_access_token(scope="read")
        with CaptureQueriesContext(connection) as queries:
            post(access_token)

        assert len(queries) == 1  # the one that looks the access token up
        assert counted() == {("issuer", "insufficient_scope", access_token.application.client_id, ""): 1}
        assert not UserIdentity.objects.exists()

    def test_takes_the_uuid_from_the_field_that_a_setting_names(self, post, make_access_token, settings):
        settings.INSTACCESS = {"USER_UUID_FIELD": "username"}
        access_token = make_access_token(scope="read")
        post(access_token)

        assert counted() == {("issuer", "insufficient_scope", access_token.application.client_id, "ada"): 1}

    def test_answers_as_ever_where_that_setting_is_bad(self, post, settings, make_access_token):
        # Bad ones are refused by `manage.py check`; until somebody looks, a refusal is not made a fault.
        access_token = make_access_token(scope="read")
        for name in ("no_such_field", "natural_key"):
            settings.INSTACCESS = {"USER_UUID_FIELD": name}

            assert "Insufficient scopes" in post(access_token).content.decode()
        assert counted() == {("issuer", "insufficient_scope", access_token.application.client_id, ""): 2}

    def test_counts_what_it_could_not_answer_under_its_code(self, post, access_token, settings):
        settings.INSTACCESS = {"CLAIMS_HOOK": lambda user, application: {"big": "x" * 9999}}

        assert post(access_token).status_code == 503
        assert counted() == {("issuer", "claims_too_large", "", ""): 1}

    def test_does_not_count_a_token_that_it_issues(self, post, access_token):
        assert post(access_token).status_code == 201
        assert counted() == {}

    def test_takes_no_reason_from_anybody_else(self, post, access_token, settings):
        def hook(user: Any, application: Any) -> Any:
            raise exceptions.InstAccessError("made up", code=access_token.token)

        settings.INSTACCESS = {"CLAIMS_HOOK": hook}
        post(access_token)

        assert counted() == {("issuer", "other", "", ""): 1}


class TestTheGateway:
    @pytest.fixture
    def make(self) -> Makes:
        ring = keyring.current()
        return Makes(ring.signing_key().private(), ring.encryption_key().private())

    @pytest.fixture
    def token(self, user: Any, application: Any) -> str:
        origin = issuer.Origin(canvas_domain="canvas.example.edu")
        return issuer.issue(user=user, application=application, service=True, origin=origin, now=time.time())[1]

    def test_counts_what_it_refuses_by_reason(self):
        ask()
        ask("opaque")
        ask("a.b.c.d.e")
        ask("a.b.c.d.e")

        assert counted() == {
            ("gateway", "no_credentials", "", ""): 1,
            ("gateway", "other_bearer", "", ""): 1,
            ("gateway", "malformed", "", ""): 2,
        }

    def test_counts_whom_a_revoked_token_was_for(self, token, user, application):
        assert ask(token) == 204
        IssuedToken.objects.update(revoked_at=timezone.now())
        forward_auth.forget()
        assert ask(token) == 401

        uuid = str(user.instaccess_identity.uuid)
        assert counted() == {("gateway", "revoked", application.client_id, uuid): 1}

    def test_counts_whom_an_expired_token_was_for_seen_before_or_not(self, token, user, application):
        ask(token)
        with time_machine.travel(timezone.now() + timedelta(hours=1, seconds=1)):
            ask(token)
            forward_auth.forget()
            ask(token)

        uuid = str(user.instaccess_identity.uuid)
        assert counted() == {("gateway", "expired", application.client_id, uuid): 2}

    def test_believes_no_claim_of_a_token_that_somebody_else_signed(self, make, rsa_pool):
        forged = Makes(rsa_pool.take(), make.encryption)
        ask(forged.token(now=int(time.time()), sub="victim", client_id="victim"))
        ask(make.encrypted(forged.signed(claims(int(time.time()), sub="victim"), kid=make.signing_kid)))

        assert counted() == {("gateway", "unknown_kid", "", ""): 1, ("gateway", "bad_signature", "", ""): 1}

    @pytest.mark.parametrize("value", [7, None, ["a"], "x" * 256, "a\x00b", "\ud800", "ü", "a\nb", ...])
    def test_counts_without_whom_where_an_authentic_token_names_what_is_no_id(self, make, value):
        long_ago = int(time.time()) - 9000
        ask(make.token(now=long_ago, sub=value, client_id=value))

        assert counted() == {("gateway", "expired", "", ""): 1}

    def test_counts_what_it_could_not_decide_under_its_code(self, token, settings):
        settings.INSTACCESS = {"DECRYPTION_KEYS": ["/does/not/exist"]}
        assert ask(token) == 503
        settings.INSTACCESS = {"DENY_LIST": "https://127.0.0.1:9/", "SERVICE_SECRETS": []}
        assert ask(token) == 503

        assert {(role, total) for (role, *_), total in counted().items()} == {("gateway", 2)}
        assert {reason for _, reason, *_ in written()} <= refusals.REASONS - {"other"}

    def test_counts_a_database_that_is_away_as_a_fault(self, token, monkeypatch):
        def away(*args: Any, **kwargs: Any) -> Any:
            raise OperationalError("the server closed the connection unexpectedly")

        monkeypatch.setattr("instaccess.gateway.unwrap_here", away)
        assert ask(token) == 503

        assert counted() == {("gateway", "fault", "", ""): 1}


class TestTheReasons:
    def test_are_all_that_there_are(self):
        # Every code that is given, or that a kind of error has, in the files that a request comes through.
        codes = set()
        for name in THE_WAY_OF_A_REQUEST:
            for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text())):
                given = isinstance(node, ast.keyword) and node.arg == "code"
                its_own = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "code"
                if (given or its_own) and isinstance(node.value, ast.Constant):
                    codes.add(node.value.value)

        assert codes - {"error", "key_refused", "audit_altered"} == refusals.REASONS - {"other"}

    def test_fit_their_column(self):
        assert max(map(len, refusals.REASONS)) <= RefusalCount._meta.get_field("reason").max_length


class TestARow:
    def test_is_of_the_hour_in_utc_in_which_it_happened(self):
        with time_machine.travel(NOW, tick=False) as now:
            refusals.count("gateway", "expired")
            now.shift(timedelta(minutes=30))
            refusals.count("gateway", "expired")
            refusals.flush()

        hours = RefusalCount.objects.order_by("hour").values_list("hour", "count")
        assert list(hours) == [(HOUR, 1), (HOUR + timedelta(hours=1), 1)]

    def test_grows_with_each_write(self):
        for _ in range(3):
            refusals.count(RefusalCount.Role.ISSUER, "throttled", client_id="c", user_uuid="u")
            assert refusals.flush() == 1

        assert written() == {("issuer", "throttled", "c", "u"): 3}

    def test_a1_holds_no_token_no_address_and_nothing_else_of_a_request(self, post, make_access_token):
        access_token = make_access_token(scope="read")
        sent = {"User-Agent": "sent-agent", "X-Forwarded-For": "192.0.2.99", "Host": "sent.example.edu"}
        for bearer in (access_token.token, "sent-token", "sent.token.x", "sent.token.x.y.z", "sent token", ""):
            post(bearer, url=f"{ISSUE_URL}?as_user_id=sent", headers=sent, REMOTE_ADDR="192.0.2.99")
            ask(bearer, **sent)
        counted()

        text = str(list(RefusalCount.objects.values_list("role", "reason", "client_id", "user_uuid", "count")))
        assert total() == 12
        for secret in (access_token.token, "sent", "192.0.2.99", "ada"):
            assert secret not in text


@REAL_TRANSACTIONS
class TestAFlood:
    def test_of_10000_bad_tokens_in_30_seconds_costs_three_writes(self, clock, statements, caplog):
        caplog.set_level(logging.CRITICAL, logger="instaccess")  # ten thousand lines
        request = RequestFactory().get(GATEWAY_URL)
        with time_machine.travel(NOW, tick=False):
            for number in range(10_000):
                token = f"{number}.b.c.d.e" if number % 2 else str(number)
                request.META["HTTP_AUTHORIZATION"] = f"Bearer {token}"
                response = forward_auth.verify(request)
                response.close()  # as a server does once it has sent it: the request has ended
                assert response.status_code == 401
                clock.pass_(30.5 / 10_000)

            during = list(statements.seen)
            assert counted() == {("gateway", "malformed", "", ""): 5000, ("gateway", "other_bearer", "", ""): 5000}
        # Each write is one INSERT and an UPDATE for each of two reasons; the first looked for old rows as well.
        assert (during.count("INSERT"), during.count("UPDATE"), during.count("DELETE")) == (3, 6, 0)
        assert len(during) == 3 * 3 + 2

    def test_at_the_issuer_costs_one_write_in_ten_seconds_too(self, post, clock, statements):
        for number in range(200):
            post(f"nobody-{number}")
            clock.pass_(0.06)

        assert statements.seen.count("INSERT") == 1
        assert counted() == {("issuer", "unknown_token", "", ""): 200}

    def test_with_tokens_of_many_users_grows_the_table_no_further_than_the_bound(self, statements):
        with time_machine.travel(NOW, tick=False):
            for number in range(1000):
                refusals.count("gateway", "revoked", user_uuid=f"user-{number}")
                if number % 100 == 99:
                    refusals.flush()

        assert RefusalCount.objects.count() == refusals.KINDS + 1
        assert written()["gateway", "revoked", "", ""] == 1000 - refusals.KINDS
        assert total() == 1000


@REAL_TRANSACTIONS
class TestWriting:
    def test_happens_when_a_request_ends_and_not_while_it_is_answered(self, due, statements):
        seen: list[int] = []
        response = Client().get(GATEWAY_URL)
        assert response.status_code == 401
        assert total() == 1

        # The same as a server does it: the answer is complete, and only then closed.
        refusals.forget()
        due.pass_(refusals.INTERVAL)
        statements.seen.clear()
        handler = get_wsgi_application()
        answer = handler(RequestFactory().get(GATEWAY_URL).environ, lambda *args: seen.append(len(statements.seen)))
        assert (seen, statements.seen) == ([0], [])
        answer.close()
        assert statements.seen
        assert total() == 2

    def test_happens_under_asgi_as_well(self, due):
        assert by_the_wire_of_asgi([("Authorization", "Bearer a.b.c.d.e")]).status_code == 401

        assert written() == {("gateway", "malformed", "", ""): 1}

    def test_is_done_by_whichever_request_ends_next(self, clock, post, access_token):
        ask("opaque")
        assert total() == 0
        clock.pass_(refusals.INTERVAL)
        assert post(access_token).status_code == 201

        assert total() == 1

    def test_waits_for_ten_seconds_after_the_last_one(self, due):
        ask()
        ask()
        due.pass_(refusals.INTERVAL - 0.001)
        ask()
        assert total() == 1
        due.pass_(0.001)
        ask()

        assert total() == 4

    def test_costs_nothing_where_nothing_was_refused(self, due, post, access_token, statements):
        post(access_token)

        assert statements.seen == []

    def test_closes_the_connection_that_it_had_to_open(self):
        refusals.count("gateway", "expired")
        connection.close()
        assert refusals.flush() == 1

        assert connection.connection is None

    def test_leaves_one_open_that_was_open(self):
        connection.ensure_connection()
        refusals.count("gateway", "expired")
        refusals.flush()

        assert connection.connection is not None

    def test_is_exact_when_threads_count_and_write_at_once(self, clock):
        def refuse() -> None:
            try:
                for number in range(100):
                    refusals.count("gateway", "revoked", user_uuid=str(number % 3))
                    if number % 25 == 0:
                        refusals.flush()
            finally:
                connection.close()

        threads = [threading.Thread(target=refuse) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refusals.flush()

        assert total() == 1600


class TestInsideSomebodysTransaction:
    """Such as that of a test of the project around us."""

    def test_the_end_of_a_request_writes_nothing(self, due, statements):
        ask()

        assert statements.seen == []
        assert counted() == {("gateway", "no_credentials", "", ""): 1}

    def test_a_failure_leaves_the_transaction_as_it_was(self, statements, user):
        refusals.count("gateway", "expired")
        with transaction.atomic():
            statements.failing = True
            assert refusals.flush() == 0
            user.refresh_from_db()
        statements.failing = False

        assert counted() == {("gateway", "expired", "", ""): 1}


@REAL_TRANSACTIONS
class TestWithoutTheDatabase:
    @pytest.fixture
    def away(self, due: Clock, statements: Statements) -> Statements:
        statements.failing = True
        return statements

    def test_o1_answers_are_as_ever(self, away, due, post):
        for _ in range(5):
            assert (ask(), post().status_code) == (401, 401)
            due.pass_(5)

    def test_o1_nothing_that_was_counted_is_lost(self, away, due):
        for _ in range(5):
            ask()
            due.pass_(refusals.INTERVAL)
        away.failing = False
        ask()

        assert written() == {("gateway", "no_credentials", "", ""): 6}

    def test_o1_it_is_tried_once_in_ten_seconds(self, away, due):
        for _ in range(100):
            ask()
            due.pass_(0.25)

        assert len(away.seen) == 3

    def test_o1_the_log_says_so_once_a_minute(self, away, due, caplog):
        for _ in range(119):
            ask()
            due.pass_(1)

        lines = [record.getMessage() for record in caplog.records if record.name == "instaccess.refusals"]
        assert len(lines) == 2
        assert "not written, kept for later" in lines[0]

    def test_o1_no_half_of_it_is_written(self, statements):
        def second_update_fails(execute: Any, sql: str, params: Any, many: Any, context: Any) -> Any:
            if sql.startswith("UPDATE") and "expired" in params:
                raise OperationalError("deadlock detected")
            return execute(sql, params, many, context)

        refusals.count("gateway", "bad_claim")
        refusals.count("gateway", "expired")
        with connection.execute_wrapper(second_update_fails):
            assert refusals.flush() == 0
        assert total() == 0

        assert refusals.flush() == 2
        assert total() == 2

    def test_a_row_deleted_meanwhile_is_not_lost(self, statements):
        def never_inserted(execute: Any, sql: str, params: Any, many: Any, context: Any) -> Any:
            if sql.startswith("INSERT"):
                return execute("SELECT 1", (), many, context)
            return execute(sql, params, many, context)

        refusals.count("gateway", "expired")
        with connection.execute_wrapper(never_inserted):
            assert refusals.flush() == 0

        assert refusals.flush() == 1

    def test_a_router_that_fails_fails_no_request(self, due, settings, caplog):
        settings.DATABASE_ROUTERS = ["tests.web.test_refusals.Lost"]
        assert (ask(), ask()) == (401, 401)

        assert [r.name for r in caplog.records].count("instaccess.refusals") == 1
        settings.DATABASE_ROUTERS = []
        assert counted() == {("gateway", "no_credentials", "", ""): 2}


class Lost:
    """A database router that knows nobody's way."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        if model is RefusalCount:
            raise LookupError("no such tenant")
        return "default"


class Elsewhere:
    """A database router that sends counts to another database."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "elsewhere" if model is RefusalCount else None


class TestTheDatabase:
    def test_is_the_one_that_the_projects_router_writes_to(self, settings):
        settings.DATABASE_ROUTERS = ["tests.web.test_refusals.Elsewhere"]

        assert refusals.rows().db == "elsewhere"


@REAL_TRANSACTIONS
class TestProcesses:
    @pytest.fixture
    def crew(self, transactional_db: None) -> Iterator[Crew]:
        crew = Crew()
        yield crew
        crew.close()

    def test_that_write_at_once_count_exactly(self, crew):
        workers = crew.start(6)
        clients = [f"client-{number}" for number in range(10)]
        for number in range(5):
            # In orders of their own, and always some that nobody has written yet.
            for worker in workers:
                clients.append(clients.pop(0))
                worker.ask(tasks.refuse, *clients, f"new-{number}", f"newer-{number}")
            together(workers, tasks.meet_at, "instaccess.refusal_table.add")
            assert together(workers, tasks.write_refusals) == [12] * 6

        assert total() == 6 * 5 * 12
        assert RefusalCount.objects.values("client_id").distinct().count() == 20

    def test_one_that_is_killed_loses_what_was_pending_and_no_more(self, crew):
        [worker] = crew.start()
        worker.ask(tasks.refuse, "c", "", "", "")
        worker.ask(tasks.write_refusals)
        worker.ask(tasks.refuse, "c", "", "")
        worker.ask(tasks.die_before, "instaccess.refusal_table.add")
        with pytest.raises(KilledError):
            worker.ask(tasks.write_refusals)

        assert total() == 4

    @pytest.mark.parametrize("number", range(1, 7))
    def test_one_that_is_killed_while_it_writes_has_written_all_or_nothing(self, crew, number):
        [worker] = crew.start()
        worker.ask(tasks.refuse, "a", "b", "c")
        worker.ask(tasks.die_after_statement, number)
        with pytest.raises(KilledError):
            worker.ask(tasks.write_refusals)

        assert total() in (0, 3)

    def test_one_that_ends_in_good_order_writes_what_was_pending(self):
        ends_after("Client().get(url)")

        assert written() == {("gateway", "no_credentials", "", ""): 1}

    def test_tests_that_are_over_leave_nothing_in_the_real_database(self):
        # As a test runner does it: while tests run the settings name another database than when the process ends.
        name = connection.settings_dict["NAME"]
        ends_after(
            "settings = connections['default'].settings_dict\n"
            "settings['NAME'] = 'of the tests'\n"
            "Client().get(url)\n"
            f"settings['NAME'] = {str(name)!r}"
        )

        assert written() == {}


def ends_after(script: str) -> None:
    """A process of its own that works on this run's database, does this and ends."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import django; django.setup()\n"
            "from django.db import connections\nfrom django.test import Client\n"
            f"url = {GATEWAY_URL!r}\n{script}",
        ],
        env=processes.environment(),
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=processes.PATIENCE,
        check=False,
    )
    assert (done.returncode, "not written" in done.stderr) == (0, False), done.stderr


class TestTheTable:
    @pytest.fixture
    def old(self) -> Callable[..., None]:
        """Makes rows, one for each age in days."""

        def make(*ages: float) -> None:
            RefusalCount.objects.bulk_create(
                RefusalCount(
                    hour=timezone.now() - timedelta(days=age),
                    role="gateway",
                    reason="expired",
                    user_uuid=str(n),
                    count=1,
                )
                for n, age in enumerate(ages)
            )

        return make

    def ages(self) -> list[int]:
        hours = RefusalCount.objects.order_by("hour").values_list("hour", flat=True)
        return [round((timezone.now() - hour) / timedelta(days=1)) for hour in hours]

    def write(self) -> None:
        refusals.count("issuer", "method")
        refusals.flush()

    def test_keeps_35_days(self, old):
        old(400, 36, 34, 1)
        self.write()

        assert self.ages() == [34, 1, 0]

    def test_keeps_the_newest_where_there_are_too_many(self, old, monkeypatch):
        monkeypatch.setattr(refusal_table, "MAX_ROWS", 4)
        old(*range(1, 11))
        self.write()

        assert self.ages() == [3, 2, 1, 0]

    def test_is_looked_after_in_short_statements_and_goes_on_where_that_was_not_enough(self, old, monkeypatch, clock):
        monkeypatch.setattr(refusal_table, "_BATCH", 3)
        monkeypatch.setattr(refusal_table, "_BATCHES", 2)
        old(*range(41, 51))
        self.write()
        assert RefusalCount.objects.count() == 5
        self.write()

        assert self.ages() == [0]

    def test_is_looked_after_once_an_hour(self, old, clock, statements):
        self.write()
        old(400)
        clock.pass_(3599)
        self.write()
        assert 400 in self.ages()
        clock.pass_(1)
        self.write()

        assert self.ages() == [0]

    def test_counts_go_on_where_it_could_not_be_looked_after(self, old, monkeypatch, caplog):
        def fail() -> bool:
            raise OperationalError("deadlock detected")

        monkeypatch.setattr(refusal_table, "trim", fail)
        self.write()
        self.write()

        assert total() == 2
        assert "deadlock detected" in caplog.text
