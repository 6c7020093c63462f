"""Tests that settings and middleware of the host project do not change the responses of the issuer."""

from __future__ import annotations

import json

import pytest
from django.db import connections
from django.test import override_settings
from django.utils import timezone
from rest_framework.settings import api_settings
from rest_framework.versioning import AcceptHeaderVersioning
from rest_framework.views import APIView

from instaccess.keys import ring
from instaccess.models import IssuedToken, Key
from tests.conftest import ISSUE_URL
from tests.projects.hostproject import ask, conflicting
from tests.support import subproject
from tests.support.answers import (
    INSUFFICIENT_SCOPE,
    INVALID,
    INVALID_AS_USER_ID,
    JWT_FROM_JWT,
    METHOD_NOT_ALLOWED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    answer,
    expired,
    signed_inside,
)

CONFLICTING = "tests.projects.hostproject.conflicting."


@pytest.fixture
def check_contract(client, post, make_access_token, initial_keys):
    """Return a function that sends the issuer one request for each kind of response in the wire contract.

    The function fails at the first response that differs from docs/wire-contract.md §1.
    """

    def check(**kwargs):
        good = make_access_token()
        response = post(good, **kwargs)
        assert response.status_code == 201
        token = response.json()["token"]
        assert response.content == f'{{"token":"{token}"}}'.encode()
        assert (response["Content-Type"].partition(";")[0], response["Cache-Control"]) == (
            "application/json",
            "no-store",
        )
        assert answer(post(**kwargs)) == UNAUTHENTICATED
        assert answer(post("unknown", **kwargs)) == INVALID
        old = make_access_token(expires=timezone.now())
        assert answer(post(old, **kwargs)) == expired(old.expires)
        assert answer(post(make_access_token(scope="read"), **kwargs)) == INSUFFICIENT_SCOPE
        assert answer(post(good, url=ISSUE_URL + "?as_user_id=4711", **kwargs)) == INVALID_AS_USER_ID
        assert answer(post(signed_inside(token), **kwargs)) == JWT_FROM_JWT
        assert answer(client.get(ISSUE_URL, headers=kwargs.get("headers", {}))) == METHOD_NOT_ALLOWED
        Key.objects.all().delete()
        ring.clear_cache()
        assert answer(post(good, **kwargs)) == UNAVAILABLE

    return check


@pytest.mark.django_db
def test_issuer_in_a_project_with_default_settings_gives_the_responses_of_the_wire_contract(check_contract):
    check_contract()


@pytest.mark.django_db
class TestDefaultSettingsOfRestFramework:
    """Tests of REST framework's default settings, which apply to each view that does not override the settings."""

    @pytest.mark.parametrize(
        ("attribute", "value"),
        [
            ("renderer_classes", [conflicting.HTML]),
            ("parser_classes", [conflicting.FailingParser]),
            ("authentication_classes", [conflicting.RefuseEveryone]),
            ("permission_classes", [conflicting.DenyEveryone]),
            ("throttle_classes", [conflicting.ThrottleEveryone]),
            ("content_negotiation_class", conflicting.FailingNegotiation),
            ("versioning_class", AcceptHeaderVersioning),
            ("metadata_class", conflicting.HTML),
            ("schema", None),
        ],
    )
    def test_default_classes_of_rest_framework_do_not_change_the_responses_of_the_issuer(
        self, check_contract, monkeypatch, attribute, value
    ):
        monkeypatch.setattr(APIView, attribute, value)

        check_contract(headers={"Accept": "text/html; version=9"})

    @pytest.mark.parametrize(
        "setting",
        [
            {"EXCEPTION_HANDLER": CONFLICTING + "handle_exception"},
            {"UNAUTHENTICATED_USER": None},
            {"UNAUTHENTICATED_TOKEN": None},
            {"URL_FORMAT_OVERRIDE": "as_user_id"},
            {"FORMAT_SUFFIX_KWARG": "suffix"},
            {"NUM_PROXIES": 3},
            {"COMPACT_JSON": False},
        ],
    )
    def test_settings_of_rest_framework_do_not_change_the_responses_of_the_issuer(self, check_contract, setting):
        with override_settings(REST_FRAMEWORK=setting):
            assert all(name in api_settings.user_settings for name in setting)
            check_contract()

    @pytest.mark.parametrize("name", ["compact", "ensure_ascii"])
    def test_json_settings_of_rest_framework_do_not_change_the_responses_of_the_issuer(
        self, check_contract, monkeypatch, name
    ):
        from rest_framework.renderers import JSONRenderer

        monkeypatch.setattr(JSONRenderer, name, not getattr(JSONRenderer, name))

        check_contract()


@pytest.mark.django_db
class TestDjangoSettings:
    @pytest.mark.parametrize(
        "values",
        [
            {"APPEND_SLASH": True},
            {"APPEND_SLASH": False},
            {"LANGUAGE_CODE": "de"},
            {"USE_THOUSAND_SEPARATOR": True, "USE_I18N": True, "LANGUAGE_CODE": "de"},
            {"DEFAULT_CHARSET": "latin-1"},
            {"DATA_UPLOAD_MAX_MEMORY_SIZE": 1},
            {"DATA_UPLOAD_MAX_NUMBER_FILES": 0},
            {"FILE_UPLOAD_HANDLERS": ["no.such.Handler"]},
            {"TIME_ZONE": "Pacific/Kiritimati"},
            {"CSRF_USE_SESSIONS": True},
            {"DEBUG": True},
            {"DEBUG_PROPAGATE_EXCEPTIONS": True},
            {"AUTHENTICATION_BACKENDS": []},
            {"MIDDLEWARE": []},
        ],
        ids=lambda values: next(iter(values)) + "=" + str(next(iter(values.values()))),
    )
    def test_django_settings_of_the_project_do_not_change_the_responses_of_the_issuer(self, check_contract, values):
        with override_settings(**values):
            check_contract(data=b"a=1&b=2", content_type="application/x-www-form-urlencoded")

    def test_issuer_treats_a_form_that_is_too_large_as_empty(self, post, access_token, initial_keys):
        with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=5):
            response = post(access_token, data=b"as_user_id=4711", content_type="application/x-www-form-urlencoded")

        assert response.status_code == 201


@pytest.mark.django_db
class TestMiddlewareOfTheProject:
    @pytest.mark.parametrize(
        "middleware",
        [
            "django.middleware.locale.LocaleMiddleware",
            "django.contrib.auth.middleware.LoginRequiredMiddleware",
            "django.middleware.gzip.GZipMiddleware",
            "django.middleware.http.ConditionalGetMiddleware",
            CONFLICTING + "FormReader",
            CONFLICTING + "BodyReader",
            CONFLICTING + "StreamReader",
        ],
    )
    @pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
    def test_middleware_of_the_project_does_not_change_the_responses_of_the_issuer(
        self, check_contract, settings, middleware, content_type
    ):
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, middleware]

        check_contract(data=b"x=1", content_type=content_type, headers={"Accept-Language": "fr"})

    def test_csrf_middleware_does_not_refuse_requests_to_the_issuer(self, access_token, initial_keys):
        from django.test import Client

        strict = Client(enforce_csrf_checks=True)
        headers = {"Authorization": f"Bearer {access_token.token}", "Origin": "https://elsewhere.example"}

        assert strict.post(ISSUE_URL, headers=headers).status_code == 201

    def test_issuer_reads_parameters_after_a_middleware_read_the_form(
        self, post, access_token, initial_keys, settings
    ):
        settings.MIDDLEWARE = [CONFLICTING + "FormReader", *settings.MIDDLEWARE]
        body = b"as_user_id=4711"
        response = post(access_token, data=body, content_type="application/x-www-form-urlencoded")

        assert answer(response) == INVALID_AS_USER_ID


@pytest.mark.django_db(transaction=True)
class TestAtomicRequests:
    def test_atomic_requests_setting_does_not_change_the_responses_of_the_issuer(self, check_contract, monkeypatch):
        monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)

        check_contract()


@pytest.mark.django_db
class TestViewsOfTheHostProject:
    def test_issuer_does_not_change_the_defaults_of_rest_framework(self):
        assert APIView.authentication_classes == api_settings.DEFAULT_AUTHENTICATION_CLASSES
        assert APIView.renderer_classes == api_settings.DEFAULT_RENDERER_CLASSES

    def test_append_slash_setting_still_redirects_other_urls_of_the_project(self, client):
        response = client.get("/admin")

        assert (response.status_code, response["Location"]) == (301, "/admin/")


@pytest.fixture(scope="module")
def answers(tmp_path_factory, _rsa_pool):
    _rsa_pool.rewind()
    folder = tmp_path_factory.mktemp("hostproject")
    return subproject.run(
        "tests.projects.hostproject.ask",
        settings="tests.projects.hostproject.settings",
        folder=folder,
        rsa_pool=_rsa_pool,
    )


class TestAProjectThatStartsWithAllConflictingSettings:
    """Tests of a process that starts with all conflicting settings. Django reads some settings only at the start."""

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("anonymous", UNAUTHENTICATED),
            ("unknown", INVALID),
            ("expired", expired(ask.EXPIRES)),
            ("scope", INSUFFICIENT_SCOPE),
            ("as_user_id", INVALID_AS_USER_ID),
            ("decrypted", JWT_FROM_JWT),
            ("GET", METHOD_NOT_ALLOWED),
        ],
    )
    def test_issuer_with_all_conflicting_settings_refuses_requests_as_in_the_contract(self, answers, name, expected):
        received = answers[name]

        assert (received["status"], received["body"].encode(), received["challenge"]) == expected
        assert received["type"].startswith("application/json")
        assert received["cache"] == "no-store"

    @pytest.mark.parametrize("name", ["success", "success .json", "success ?format=html", "success without a body"])
    def test_issuer_issues_tokens_in_a_process_with_all_conflicting_settings(self, answers, name):
        received = answers[name]

        assert received["status"] == 201
        assert list(json.loads(received["body"])) == ["token"]
        assert received["body"] == json.dumps(json.loads(received["body"]), separators=(",", ":"))
        assert received["type"].startswith("application/json")
        assert received["cache"] == "no-store"

    def test_issuer_lists_the_allowed_methods_in_a_process_with_all_conflicting_settings(self, answers):
        assert answers["GET"]["allow"] == answers["OPTIONS"]["allow"] == "POST, OPTIONS"
        assert (answers["OPTIONS"]["status"], answers["OPTIONS"]["body"]) == (204, "")

    def test_p15_issuer_with_all_conflicting_settings_stores_an_audit_row_for_each_token(self, answers):
        assert answers["rows"] == 4

    def test_p7_issuer_with_all_conflicting_settings_creates_no_user(self, answers):
        assert answers["users"] == 1


@pytest.mark.django_db(transaction=True)
class TestAProjectWithoutMiddleware:
    def test_issuer_commits_the_audit_row_in_a_project_without_middleware(
        self, post, access_token, initial_keys, settings
    ):
        settings.MIDDLEWARE = []

        assert post(access_token).status_code == 201
        assert IssuedToken.objects.count() == 1
