"""Tests of the issuer's OAuth2 validator, which reads the request and never calls an introspection server."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone
from oauth2_provider.models import get_access_token_model, get_application_model
from oauth2_provider.oauth2_validators import OAuth2Validator
from oauthlib.common import Request

from instaccess.issuer import oauth2_validator
from tests.conftest import ISSUE_URL
from tests.support.answers import INVALID, UNAVAILABLE, answer, expired

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]


@pytest.fixture
def provider(settings):
    """Return a function that overrides settings of django-oauth-toolkit."""

    def set_(**values):
        settings.OAUTH2_PROVIDER = {**settings.OAUTH2_PROVIDER, **values}

    return set_


class TestAnApplicationWhoseUsabilityDependsOnTheRequest:
    def test_is_usable_method_of_the_application_receives_the_request(self, post, access_token, monkeypatch):
        requests = []

        def is_usable(self, request):
            requests.append((request.http_method, request.uri, request.headers.get("REMOTE_ADDR")))
            return True

        monkeypatch.setattr(get_application_model(), "is_usable", is_usable)

        assert post(access_token, REMOTE_ADDR="198.51.100.7").status_code == 201
        assert set(requests) == {("POST", "http://testserver" + ISSUE_URL, "198.51.100.7")}


class TestATokenRestrictedToResources:
    """Tests of access tokens that are valid only for the resource servers in the token (RFC 8707)."""

    @pytest.mark.parametrize(
        "resource",
        [
            ["http://testserver/api/v1/inst_access_tokens"],
            ["http://testserver/"],
            ["http://testserver/api/"],
            ["https://elsewhere.example/", "http://testserver/"],
            [],
        ],
    )
    def test_issuer_accepts_an_access_token_that_is_restricted_to_the_issuer(self, post, make_access_token, resource):
        assert post(make_access_token(resource=resource)).status_code == 201

    @pytest.mark.parametrize("suffix", ["/", ".json", ".json/"])
    def test_issuer_accepts_an_access_token_restricted_to_the_issuer_at_every_url_of_the_endpoint(
        self, post, make_access_token, suffix
    ):
        token = make_access_token(resource=["http://testserver/api/v1/inst_access_tokens"])

        assert post(token, url=ISSUE_URL + suffix).status_code == 201

    @pytest.mark.parametrize(
        "resource",
        [
            ["https://elsewhere.example/"],
            ["https://testserver/"],
            ["http://testserver/api/v2/"],
            ["http://testserver.elsewhere.example/"],
            ["http://testserver:8000/"],
            ["http://testserver/api/v1/inst_access_tokens/more"],
        ],
    )
    def test_issuer_refuses_an_access_token_for_another_resource(self, post, make_access_token, resource):
        assert answer(post(make_access_token(resource=resource))) == INVALID

    def test_issuer_refuses_an_access_token_for_another_resource_even_if_the_query_contains_the_resource(
        self, post, make_access_token
    ):
        token = make_access_token(resource=["https://elsewhere.example/"])

        assert answer(post(token, url=ISSUE_URL + "?https://elsewhere.example/")) == INVALID

    def test_issuer_refuses_an_access_token_for_another_resource_even_if_the_forwarded_host_matches(
        self, post, make_access_token
    ):
        token = make_access_token(resource=["http://other.example.edu/"])

        assert answer(post(token, headers={"X-Forwarded-Host": "other.example.edu"})) == INVALID


class PrefixValidator(OAuth2Validator):
    """A validator of the project that accepts only access tokens that begin with `good`."""

    def validate_bearer_token(self, token, scopes, request):
        return token.startswith("good") and super().validate_bearer_token(token, scopes, request)


class AliasValidator(OAuth2Validator):
    """A validator of the project that also accepts a stored access token with the prefix `alias-`."""

    def _load_access_token(self, token):
        return super()._load_access_token(token.removeprefix("alias-"))


class RequestReadingValidator(OAuth2Validator):
    """A validator of the project that accepts only requests with the header `X-Team: red`."""

    def validate_bearer_token(self, token, scopes, request):
        assert isinstance(request, Request)
        return request.headers["HTTP_X_TEAM"] == "red" and super().validate_bearer_token(token, scopes, request)


class PermissiveValidator(OAuth2Validator):
    """A validator that accepts every request without setting the access token."""

    def validate_bearer_token(self, token, scopes, request):
        return True


class FailingValidator(OAuth2Validator):
    def validate_bearer_token(self, token, scopes, request):
        raise RuntimeError("the validator of the project fails")


class TestAValidatorOfTheProject:
    @pytest.mark.parametrize("by_path", [True, False])
    def test_issuer_uses_the_validator_of_the_project(self, post, make_access_token, provider, by_path):
        provider(
            OAUTH2_VALIDATOR_CLASS="tests.issuer.test_oauth2_validator.PrefixValidator"
            if by_path
            else PrefixValidator
        )

        assert post(make_access_token(token="good-one")).status_code == 201
        assert answer(post(make_access_token(token="bad-one"))) == INVALID

    def test_expired_access_token_is_refused_as_expired_with_a_validator_of_the_project(
        self, post, make_access_token, provider
    ):
        provider(OAUTH2_VALIDATOR_CLASS="tests.issuer.test_oauth2_validator.PrefixValidator")

        token = make_access_token(token="good", expires=timezone.now())

        assert answer(post(token)) == expired(token.expires)

    def test_validator_of_the_project_can_replace_the_lookup_of_access_tokens(
        self, post, make_access_token, provider
    ):
        provider(OAUTH2_VALIDATOR_CLASS="tests.issuer.test_oauth2_validator.AliasValidator")
        make_access_token(token="secret")

        assert post("alias-secret").status_code == 201
        assert answer(post("alias-other")) == INVALID

    def test_validator_of_the_project_can_read_the_request(self, post, access_token, provider):
        provider(OAUTH2_VALIDATOR_CLASS="tests.issuer.test_oauth2_validator.RequestReadingValidator")

        assert post(access_token, headers={"X-Team": "red"}).status_code == 201
        assert answer(post(access_token, headers={"X-Team": "blue"})) == INVALID

    def test_validator_of_the_project_cannot_accept_a_request_without_an_access_token(self, post, provider):
        provider(OAUTH2_VALIDATOR_CLASS="tests.issuer.test_oauth2_validator.PermissiveValidator")

        assert answer(post("whatever")) == INVALID

    def test_p4_validator_of_the_project_cannot_accept_an_inactive_user(
        self, post, user, make_access_token, provider
    ):
        provider(OAUTH2_VALIDATOR_CLASS="tests.issuer.test_oauth2_validator.AliasValidator")
        user.is_active = False
        user.save()

        assert answer(post(make_access_token(token="secret"))) == INVALID

    def test_issuer_returns_503_if_the_validator_of_the_project_fails(self, post, access_token, provider):
        provider(OAUTH2_VALIDATOR_CLASS="tests.issuer.test_oauth2_validator.FailingValidator")

        assert answer(post(access_token)) == UNAVAILABLE

    def test_issuer_returns_503_if_the_validator_of_the_project_cannot_be_imported(
        self, post, access_token, provider
    ):
        provider(OAUTH2_VALIDATOR_CLASS="tests.issuer.test_oauth2_validator.NoSuchValidator")

        assert answer(post(access_token)) == UNAVAILABLE


@pytest.fixture
def introspection(provider):
    """Start an introspection server that accepts every token, and let django-oauth-toolkit use the server."""
    calls = []

    class AcceptEveryToken(BaseHTTPRequestHandler):
        def do_POST(self):
            calls.append(self.rfile.read(int(self.headers["Content-Length"])))
            scope = "url:POST|/api/v1/inst_access_tokens"
            body = json.dumps({"active": True, "username": "mallory", "scope": scope, "exp": 4102444800}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            """Suppress the access log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), AcceptEveryToken)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    provider(
        RESOURCE_SERVER_INTROSPECTION_URL=f"http://127.0.0.1:{server.server_port}/introspect",
        RESOURCE_SERVER_AUTH_TOKEN="ours",
    )
    yield calls
    server.shutdown()
    server.server_close()
    thread.join()


class TestAProjectWithTokenIntrospection:
    def test_p7_unknown_bearer_token_causes_no_introspection_request_and_creates_no_user(
        self, post, user, introspection
    ):
        assert answer(post("unknown")) == INVALID
        assert introspection == []
        assert list(get_user_model().objects.all()) == [user]
        assert not get_access_token_model().objects.exists()

    def test_p7_expired_access_token_causes_no_introspection_request(self, post, make_access_token, introspection):
        token = make_access_token(expires=timezone.now())

        assert answer(post(token)) == expired(token.expires)
        assert introspection == []

    def test_p7_issuer_returns_503_and_calls_no_server_if_the_toolkit_version_is_unsupported(
        self, post, access_token, introspection, monkeypatch, caplog
    ):
        monkeypatch.delattr(OAuth2Validator, "_get_token_from_authentication_server")
        oauth2_validator.local_validator_class.cache_clear()

        assert answer(post("unknown")) == answer(post(access_token)) == UNAVAILABLE
        assert introspection == []
        assert "this version of django-oauth-toolkit" in caplog.text
        oauth2_validator.local_validator_class.cache_clear()

    def test_p7_unknown_bearer_token_causes_no_introspection_request_with_a_validator_of_the_project(
        self, post, user, provider, introspection
    ):
        provider(OAUTH2_VALIDATOR_CLASS="tests.issuer.test_oauth2_validator.AliasValidator")

        assert answer(post("alias-unknown")) == INVALID
        assert introspection == []

    def test_p7_stored_access_token_is_accepted_without_an_introspection_request(
        self, post, access_token, introspection
    ):
        assert post(access_token).status_code == 201
        assert introspection == []

    def test_p7_validator_of_the_toolkit_sends_an_introspection_request_for_an_unknown_token(
        self, user, introspection
    ):
        """Prove that the tests above would fail with the toolkit's own validator."""
        request = Request("http://testserver/", http_method="POST")
        OAuth2Validator().validate_bearer_token("unknown", [], request)

        assert len(introspection) == 1
        assert get_user_model().objects.filter(username="mallory").exists()
