"""Tests of `GET /internal/services/jwks` (docs/wire-contract.md §5): the public keys for services."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine
from django.conf import settings as django_settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.http import HttpResponse
from django.test import Client, override_settings
from django.urls import reverse
from jwcrypto.jwk import JWK

from instaccess.conf import conf
from instaccess.keys import lifecycle, provision
from instaccess.keys import ring as keys_ring
from instaccess.models import Key
from instaccess.trust import material
from tests.support import key_texts

pytestmark = pytest.mark.django_db

URL = "/internal/services/jwks"
SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
UNAVAILABLE = b'{"errors":[{"message":"The service is temporarily unavailable."}]}'


def served(client: Any) -> list[dict[str, str]]:
    response = client.get(URL)
    assert response.status_code == 200
    return list(response.json()["keys"])


@pytest.mark.usefixtures("initial_keys")
class TestTheJwks:
    def test_jwks_contains_only_the_current_and_the_future_signing_key(self, client):
        assert [key["kid"] for key in served(client)] == [
            Key.objects.get(use=SIG, status=status).kid for status in ("current", "future")
        ]

    def test_k9_each_key_in_the_jwks_has_six_public_members(self, client):
        for key in served(client):
            assert set(key) == {"kty", "n", "e", "use", "alg", "kid"}
            assert (key["kty"], key["use"], key["alg"]) == ("RSA", "sig", "RS256")

    def test_k9_jwks_contains_no_private_members_of_a_key_row(self, client):
        ring = keys_ring.load()
        row = Key.objects.get(kid=ring.signing_key().kid)
        private = dict(ring.signing_key().private().reveal())
        row.public_jwk = {**row.public_jwk, **private, "k": "c2VjcmV0"}
        row.save()
        body = client.get(URL).content.decode()

        for name in ("d", "p", "q", "dp", "dq", "qi"):
            assert private[name] not in body
        assert "c2VjcmV0" not in body

    def test_kid_of_a_published_key_is_the_rfc_7638_thumbprint(self, client):
        for key in served(client):
            assert JWK(**key).thumbprint() == key["kid"]

    def test_jwks_lists_the_current_key_then_past_keys_newest_first_then_future_keys(self, client):
        with time_machine.travel(datetime.now(UTC), tick=False) as clock:
            retired = []
            for _ in range(3):
                clock.shift(1)
                retired.insert(0, lifecycle.rotate(SIG, force=True).retired.kid)
            kids = [key["kid"] for key in served(client)]

        current, future = (Key.objects.get(use=SIG, status=status).kid for status in ("current", "future"))
        assert kids == [current, *retired, future]

    def test_past_key_is_removed_from_the_jwks_when_its_last_token_has_expired(self, client):
        with time_machine.travel(START, tick=False) as clock, override_settings(INSTACCESS={"KEY_CACHE_SECONDS": 0}):
            past = lifecycle.rotate(SIG, force=True).retired.kid
            clock.shift(conf.key_retention_seconds - 1)
            assert past in [key["kid"] for key in served(client)]
            clock.shift(1)
            assert past not in [key["kid"] for key in served(client)]

    def test_k10_jwks_omits_a_key_immediately_after_the_key_was_revoked(self, client):
        current, future = (key["kid"] for key in served(client))
        lifecycle.revoke(current)
        kids = [key["kid"] for key in served(client)]

        assert current not in kids
        assert kids[0] == future

    def test_jwks_contains_an_imported_public_signing_key(self, client, rsa_pool):
        public = material.to_text(rsa_pool.take(), file_format="jwk")
        kid = key_texts.import_key(public, use=SIG).kid

        assert kid in [key["kid"] for key in served(client)]

    def test_k7_jwks_does_not_contain_a_modified_key(self, client, rsa_pool):
        row = Key.objects.get(status="future")
        row.public_jwk = {**row.public_jwk, "n": rsa_pool.take()["n"]}
        row.save()

        assert [key["kid"] for key in served(client)] == [Key.objects.get(use=SIG, status="current").kid]

    def test_o6_jwks_endpoint_returns_503_if_the_key_encryption_key_is_missing(self, client, caplog):
        """The issuer must answer 503, because the issuer can't check the key rows and could publish a forged key."""
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["A" * 43]}):
            assert client.get(URL).status_code == 503
        assert "INSTACCESS['KEY_ENCRYPTION_KEYS']" in caplog.text


@pytest.mark.usefixtures("initial_keys")
class TestTheJwksResponse:
    def test_jwks_response_is_json_and_cacheable_for_the_configured_time(self, client):
        response = client.get(URL)

        assert response["Content-Type"] == "application/json; charset=utf-8"
        assert response["Cache-Control"] == "public, max-age=300"

    @override_settings(INSTACCESS={"JWKS_MAX_AGE": 60})
    def test_jwks_max_age_setting_sets_the_max_age_of_the_response(self, client):
        assert client.get(URL)["Cache-Control"] == "public, max-age=60"

    def test_body_of_the_jwks_response_is_compact_json_with_sorted_members(self, client):
        response = client.get(URL)

        assert response.content.startswith(b'{"keys":[{"alg":"RS256","e":"AQAB","kid":"')
        compact = json.dumps(response.json(), separators=(",", ":"), sort_keys=True)
        assert response.content == compact.encode()

    def test_jwks_response_has_no_cookies_and_no_vary_header(self, client, user):
        client.force_login(user)
        response = client.get(URL)

        assert not response.cookies
        assert not response.has_header("Vary")
        assert response.content == Client().get(URL).content

    def test_body_and_etag_of_an_unchanged_jwks_stay_the_same(self, client):
        first, second = client.get(URL), client.get(URL)

        assert first.content == second.content
        assert first["ETag"] == second["ETag"]
        assert re.fullmatch(r'"[0-9a-f]{32}"', first["ETag"])

    @pytest.mark.parametrize("accept", ["text/html", "application/xml", "", "*/*", "application/jwk-set+json"])
    def test_jwks_endpoint_ignores_the_accept_header(self, client, accept):
        assert client.get(URL, headers={"Accept": accept}).json()["keys"]

    def test_head_request_for_the_jwks_gets_the_same_headers_and_no_body(self, client):
        get, head = client.get(URL), client.head(URL)

        assert (head.status_code, head.content) == (200, b"")
        for name in ("Content-Type", "Cache-Control", "ETag"):
            assert head[name] == get[name]


@pytest.mark.usefixtures("initial_keys")
class TestConditionalRequestsForTheJwks:
    @pytest.mark.parametrize("spelled", ["{}", "W/{}", '"other", {}', "*"])
    def test_request_with_the_current_etag_of_the_jwks_gets_a_304(self, client, spelled):
        first = client.get(URL)
        response = client.get(URL, headers={"If-None-Match": spelled.format(first["ETag"])})

        assert (response.status_code, response.content) == (304, b"")
        assert response["ETag"] == first["ETag"]
        assert response["Cache-Control"] == first["Cache-Control"]

    def test_request_with_an_old_etag_gets_the_changed_jwks(self, client):
        first = client.get(URL)
        lifecycle.rotate(SIG, force=True)
        response = client.get(URL, headers={"If-None-Match": first["ETag"]})

        assert response.status_code == 200
        assert response["ETag"] != first["ETag"]

    @pytest.mark.parametrize("header", ["nonsense", '"', "W/", "\x00", '"' + "a" * 5000 + '"'])
    def test_request_with_an_unknown_etag_gets_the_full_jwks(self, client, header):
        assert client.get(URL, headers={"If-None-Match": header}).status_code == 200


class TestTheJwksEndpointWithoutASigningKey:
    def unavailable(self, response: HttpResponse) -> None:
        assert (response.status_code, response.content) == (503, UNAVAILABLE)
        assert response["Retry-After"] == "10"
        assert response["Cache-Control"] == "no-store"

    def test_k5_jwks_endpoint_returns_503_instead_of_an_empty_jwks_if_there_are_no_keys(self, client, caplog):
        self.unavailable(client.get(URL))
        assert "instaccess_init" in caplog.text

    def test_k8_jwks_endpoint_returns_503_if_there_is_only_an_encryption_key(self, client):
        provision.generate(ENC)

        self.unavailable(client.get(URL))

    def test_k5_jwks_endpoint_serves_the_jwks_after_init(self, client):
        self.unavailable(client.get(URL))
        provision.init()

        assert len(served(client)) == 2

    @pytest.mark.parametrize("error", [OperationalError, DatabaseError, InterfaceError])
    def test_o1_jwks_endpoint_answers_503_while_the_database_is_unavailable_and_recovers(
        self, client, error, initial_keys, caplog
    ):
        def fail(*args: Any) -> Any:
            raise error("server closed the connection")

        with connection.execute_wrapper(fail):
            self.unavailable(client.get(URL))
        assert "server closed the connection" in caplog.text
        assert len(served(client)) == 2

    def test_jwks_endpoint_returns_503_and_logs_the_name_of_an_invalid_setting(self, client, initial_keys, caplog):
        with override_settings(INSTACCESS={"JWKS_MAX_AGE": -1}):
            self.unavailable(client.get(URL))
        assert "JWKS_MAX_AGE" in caplog.text


@pytest.mark.usefixtures("initial_keys")
class TestMethodsOtherThanGetAndHead:
    @pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options", "trace"])
    def test_jwks_endpoint_returns_405_and_the_allow_header_for_methods_other_than_get_and_head(self, client, method):
        response = getattr(client, method)(URL)

        assert response.status_code == 405
        assert response["Allow"] == "GET, HEAD"
        assert json.loads(response.content) == {"errors": [{"message": "Method not allowed."}]}

    def test_jwks_endpoint_returns_405_for_post_even_with_csrf_checks(self):
        assert Client(enforce_csrf_checks=True).post(URL).status_code == 405


@pytest.mark.usefixtures("initial_keys")
class TestTheJwksEndpointInAHostProject:
    def test_login_required_middleware_does_not_apply_to_the_jwks_endpoint(self, client):
        middleware = [*django_settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
        with override_settings(MIDDLEWARE=middleware):
            assert client.get("/admin/instaccess/").status_code == 302
            assert len(served(client)) == 2

    def test_jwks_does_not_depend_on_the_language_of_the_client(self, client):
        middleware = [*django_settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
        before = client.get(URL).content
        with override_settings(MIDDLEWARE=middleware):
            assert client.get(URL, headers={"Accept-Language": "de"}).content == before

    def test_jwks_endpoint_executes_one_query_and_no_query_while_the_keys_are_cached(
        self, client, django_assert_num_queries
    ):
        with django_assert_num_queries(1):
            client.get(URL)
        with django_assert_num_queries(0):
            client.get(URL)


class TestTheNamesOfTheInternalUrls:
    @pytest.mark.parametrize("name", ["jwks", "revocations"])
    @pytest.mark.parametrize("urlconf", ["instaccess.urls", "instaccess.issuer.urls_internal"])
    def test_internal_url_can_be_reversed_by_its_name(self, name, urlconf):
        assert reverse(f"instaccess-{name}", urlconf=urlconf) == f"/internal/services/{name}"


class TestACachedCopyOfTheJwks:
    def test_k4_cached_copy_of_the_jwks_contains_a_key_before_the_key_signs(self, client):
        """Cache the JWK set for the longest allowed time, from a worker that reloads its keys as late as possible."""
        with time_machine.travel(START, tick=False) as clock:
            provision.init()
            key = provision.generate(SIG)
            clock.shift(conf.key_cache_seconds)
            copy = served(client)
            clock.shift(conf.jwks_max_age)
            lifecycle.activate(key.kid)

        assert key.kid in [key["kid"] for key in copy]
