"""Tests of middleware that opens a transaction around the issuing endpoint: the warning, the 503 and its log line."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import WARNING, run_checks
from django.db import transaction
from django.test import override_settings
from django.utils.deprecation import MiddlewareMixin

from instaccess.models import IssuedToken
from tests.projects.revisions import ask
from tests.support import subproject


class InACall:
    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        with transaction.atomic():
            return self.get_response(request)


class InASubclass(InACall):
    """A middleware whose base class opens the transaction."""


class Decorated(MiddlewareMixin):
    @transaction.atomic
    def __call__(self, request: Any) -> Any:
        return super().__call__(request)


class Wrapped:
    def __init__(self, get_response: Any) -> None:
        self.get_response = transaction.atomic(using="default")(get_response)

    def __call__(self, request: Any) -> Any:
        return self.get_response(request)


class AroundTheView(MiddlewareMixin):
    def process_view(self, request: Any, view_func: Any, args: Any, kwargs: Any) -> Any:
        with transaction.atomic(), transaction.atomic():
            return view_func(request, *args, **kwargs)


def function(get_response: Any) -> Any:
    def middleware(request: Any) -> Any:
        with transaction.atomic():
            return get_response(request)

    return middleware


# The check must ignore middleware without usable source code. `inspect` finds no source code for a class that `exec`
# creates. For a lambda in a dictionary, `inspect` returns a line that isn't a complete statement.
_namespace: dict[str, Any] = {"__name__": __name__}
exec("class Generated:\n    pass", _namespace)
Generated = _namespace["Generated"]
_functions = {
    "passes the request on": lambda get_response: get_response,
}
from_a_dictionary = _functions["passes the request on"]


class WithTransactionsOfItsOwn:
    """A middleware that writes its own rows in a transaction, before and after the view."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        with transaction.atomic():
            self.count(request)
        response = self.get_response(request)
        self.count(request)
        return response

    @transaction.atomic
    def count(self, request: Any) -> None:
        pass


def wrap(name: str) -> str:
    return f"{__name__}.{name}"


OPENING = ["InACall", "InASubclass", "Decorated", "Wrapped", "AroundTheView", "function"]


def warnings(*middleware: str) -> list[Any]:
    with override_settings(MIDDLEWARE=list(middleware)):
        return [message for message in run_checks() if message.id == "instaccess.W021"]


class TestTheCheckForTransactionsInMiddleware:
    @pytest.mark.parametrize("name", OPENING)
    def test_p20_check_names_middleware_that_opens_a_transaction(self, name):
        [message] = warnings("django.middleware.common.CommonMiddleware", wrap(name))

        assert message.level == WARNING
        assert wrap(name) in message.msg
        assert "/api/v1/inst_access_tokens" in message.hint

    def test_p20_check_lists_all_middleware_that_opens_a_transaction_in_one_message(self):
        [message] = warnings(wrap("InACall"), wrap("WithTransactionsOfItsOwn"), wrap("function"))

        assert f": {wrap('InACall')}, {wrap('function')}. " in message.msg

    def test_check_does_not_warn_about_middleware_of_django_or_transactions_around_other_code(self, settings):
        assert warnings(*settings.MIDDLEWARE, wrap("WithTransactionsOfItsOwn")) == []

    def test_p20_check_names_middleware_after_an_entry_that_cannot_be_imported(self):
        [message] = warnings("no.such.Middleware", wrap("InACall"))

        assert wrap("InACall") in message.msg

    @pytest.mark.parametrize(
        "path",
        [
            *("no.such.Middleware", "os.getpid", "functools.partial", "re.compile"),
            *(wrap("Generated"), wrap("from_a_dictionary")),
        ],
    )
    def test_check_does_not_warn_about_middleware_whose_source_code_cannot_be_analyzed(self, path):
        assert warnings(path) == []


@pytest.mark.django_db(transaction=True)
class TestTheIssuerInsideATransactionOfAMiddleware:
    @pytest.mark.parametrize("name", OPENING)
    def test_p20_issuer_returns_503_inside_a_transaction_and_logs_the_fix(
        self, name, post, access_token, initial_keys, settings, caplog
    ):
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, wrap(name)]

        assert post(access_token).status_code == 503
        assert not IssuedToken.objects.exists()
        [text] = [record.getMessage() for record in caplog.records if record.name == "instaccess.issuer"]
        assert "audit: the request is inside an open transaction" in text
        assert "exclude the issuing endpoint from this middleware or decorator" in text
        assert "`python manage.py check`" in text

    def test_issuer_issues_tokens_if_a_middleware_opens_transactions_around_other_code(
        self, post, access_token, initial_keys, settings
    ):
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, wrap("WithTransactionsOfItsOwn")]

        assert post(access_token).status_code == 201


@pytest.fixture(scope="module")
def answers(tmp_path_factory, _rsa_pool):
    _rsa_pool.rewind()
    return subproject.run(
        "tests.projects.revisions.ask",
        settings="tests.projects.revisions.settings",
        folder=tmp_path_factory.mktemp("revisions"),
        rsa_pool=_rsa_pool,
    )


class TestDjangoReversion:
    def test_p20_issuer_returns_503_with_django_reversion_and_a_check_names_the_middleware(self, answers):
        path, *_ = ask.MIDDLEWARE
        answer = answers[path]

        assert (answer["status"], answer["rows"]) == (503, 0)
        assert answer["body"] == '{"errors":[{"message":"The service is temporarily unavailable."}]}'
        assert [text for text in answer["log"] if "the request is inside an open transaction" in text]
        assert [path in text for text in answer["warned"]] == [True]

    @pytest.mark.parametrize("path", ask.MIDDLEWARE[1:])
    def test_p20_issuer_issues_tokens_without_a_warning_after_each_fix_that_the_hint_names(self, answers, path):
        assert answers[path] | {"body": ""} == {"status": 201, "body": "", "rows": 1, "log": [], "warned": []}
