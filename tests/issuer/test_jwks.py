"""`GET /internal/services/jwks` (contract §5): what services elsewhere see of our keys."""

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
from jwcrypto.jwk import JWK

from instaccess.conf import conf
from instaccess.keys import lifecycle, provision
from instaccess.keys import ring as keys_ring
from instaccess.models import Key
from instaccess.trust import material

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
class TestTheSet:
    def test_holds_the_current_and_the_future_signing_key_and_no_encryption_key(self, client):
        assert [key["kid"] for key in served(client)] == [
            Key.objects.get(use=SIG, status=status).kid for status in ("current", "future")
        ]

    def test_k9_names_six_members_of_each_key_and_none_is_private_or_symmetric(self, client):
        for key in served(client):
            assert set(key) == {"kty", "n", "e", "use", "alg", "kid"}
            assert (key["kty"], key["use"], key["alg"]) == ("RSA", "sig", "RS256")

    def test_k9_has_no_private_member_though_a_row_got_one(self, client):
        ring = keys_ring.load()
        row = Key.objects.get(kid=ring.signing_key().kid)
        private = dict(ring.signing_key().private())
        row.public_jwk = {**row.public_jwk, **private, "k": "c2VjcmV0"}
        row.save()
        body = client.get(URL).content.decode()

        for name in ("d", "p", "q", "dp", "dq", "qi"):
            assert private[name] not in body
        assert "c2VjcmV0" not in body

    def test_names_each_key_by_its_rfc_7638_thumbprint(self, client):
        for key in served(client):
            assert JWK(**key).thumbprint() == key["kid"]

    def test_has_the_current_key_first_then_past_ones_the_latest_first_then_future_ones(self, client):
        with time_machine.travel(datetime.now(UTC), tick=False) as clock:
            retired = []
            for _ in range(3):
                clock.shift(1)
                retired.insert(0, lifecycle.rotate(SIG, force=True).retired.kid)
            kids = [key["kid"] for key in served(client)]

        current, future = (Key.objects.get(use=SIG, status=status).kid for status in ("current", "future"))
        assert kids == [current, *retired, future]

    def test_loses_a_past_key_when_its_last_token_is_dead(self, client):
        with time_machine.travel(START, tick=False) as clock, override_settings(INSTACCESS={"KEY_CACHE_SECONDS": 0}):
            past = lifecycle.rotate(SIG, force=True).retired.kid
            clock.shift(conf.key_retention_seconds - 1)
            assert past in [key["kid"] for key in served(client)]
            clock.shift(1)
            assert past not in [key["kid"] for key in served(client)]

    def test_k10_loses_a_revoked_key_at_once(self, client):
        current, future = (key["kid"] for key in served(client))
        lifecycle.revoke(current)
        kids = [key["kid"] for key in served(client)]

        assert current not in kids
        assert kids[0] == future

    def test_holds_a_public_signing_key_that_was_imported(self, client, rsa_pool):
        public = material.to_text(rsa_pool.take(), file_format="jwk", private=False)
        kid = provision.import_key(public, use=SIG).kid

        assert kid in [key["kid"] for key in served(client)]

    def test_k7_goes_on_without_a_key_whose_public_half_was_altered(self, client, rsa_pool):
        row = Key.objects.get(status="future")
        row.public_jwk = {**row.public_jwk, "n": rsa_pool.take()["n"]}
        row.save()

        assert [key["kid"] for key in served(client)] == [Key.objects.get(use=SIG, status="current").kid]

    def test_o6_needs_no_private_half_to_open(self, client):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["A" * 43]}):
            assert len(served(client)) == 2


@pytest.mark.usefixtures("initial_keys")
class TestTheAnswer:
    def test_is_json_that_anybody_may_keep_for_the_time_of_the_setting(self, client):
        response = client.get(URL)

        assert response["Content-Type"] == "application/json; charset=utf-8"
        assert response["Cache-Control"] == "public, max-age=300"

    @override_settings(INSTACCESS={"JWKS_MAX_AGE": 60})
    def test_follows_the_setting(self, client):
        assert client.get(URL)["Cache-Control"] == "public, max-age=60"

    def test_sets_no_cookie_and_depends_on_no_header(self, client, user):
        client.force_login(user)
        response = client.get(URL)

        assert not response.cookies
        assert not response.has_header("Vary")
        assert response.content == Client().get(URL).content

    def test_says_the_same_twice(self, client):
        first, second = client.get(URL), client.get(URL)

        assert first.content == second.content
        assert first["ETag"] == second["ETag"]
        assert re.fullmatch(r'"[0-9a-f]{32}"', first["ETag"])

    @pytest.mark.parametrize("accept", ["text/html", "application/xml", "", "*/*", "application/jwk-set+json"])
    def test_does_not_mind_what_is_asked_for(self, client, accept):
        assert client.get(URL, headers={"Accept": accept}).json()["keys"]

    def test_to_head_has_the_same_headers_and_no_body(self, client):
        get, head = client.get(URL), client.head(URL)

        assert (head.status_code, head.content) == (200, b"")
        for name in ("Content-Type", "Cache-Control", "ETag"):
            assert head[name] == get[name]


@pytest.mark.usefixtures("initial_keys")
class TestAskedWithTheETag:
    @pytest.mark.parametrize("spelled", ["{}", "W/{}", '"other", {}', "*"])
    def test_says_that_nothing_has_changed(self, client, spelled):
        first = client.get(URL)
        response = client.get(URL, headers={"If-None-Match": spelled.format(first["ETag"])})

        assert (response.status_code, response.content) == (304, b"")
        assert response["ETag"] == first["ETag"]
        assert response["Cache-Control"] == first["Cache-Control"]

    def test_sends_the_set_once_it_has_changed(self, client):
        first = client.get(URL)
        lifecycle.rotate(SIG, force=True)
        response = client.get(URL, headers={"If-None-Match": first["ETag"]})

        assert response.status_code == 200
        assert response["ETag"] != first["ETag"]

    @pytest.mark.parametrize("header", ["nonsense", '"', "W/", "\x00", '"' + "a" * 5000 + '"'])
    def test_sends_the_set_for_a_tag_that_is_none_of_ours(self, client, header):
        assert client.get(URL, headers={"If-None-Match": header}).status_code == 200


class TestWithoutASigningKey:
    def unavailable(self, response: HttpResponse) -> None:
        assert (response.status_code, response.content) == (503, UNAVAILABLE)
        assert response["Retry-After"] == "10"
        assert response["Cache-Control"] == "no-store"

    def test_k5_it_is_unavailable_and_not_empty(self, client, caplog):
        self.unavailable(client.get(URL))
        assert "instaccess_init" in caplog.text

    def test_k8_an_encryption_key_is_no_help(self, client):
        provision.generate(ENC)

        self.unavailable(client.get(URL))

    def test_k5_it_is_there_after_init(self, client):
        self.unavailable(client.get(URL))
        provision.init()

        assert len(served(client)) == 2

    @pytest.mark.parametrize("error", [OperationalError, DatabaseError, InterfaceError])
    def test_o1_with_the_database_away_it_is_unavailable_and_comes_back_by_itself(
        self, client, error, initial_keys, caplog
    ):
        def away(*args: Any) -> Any:
            raise error("server closed the connection")

        with connection.execute_wrapper(away):
            self.unavailable(client.get(URL))
        assert "server closed the connection" in caplog.text
        assert len(served(client)) == 2

    def test_a_bad_setting_makes_it_unavailable_and_is_named_in_the_log(self, client, initial_keys, caplog):
        with override_settings(INSTACCESS={"JWKS_MAX_AGE": -1}):
            self.unavailable(client.get(URL))
        assert "JWKS_MAX_AGE" in caplog.text


@pytest.mark.usefixtures("initial_keys")
class TestAnotherMethod:
    @pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options", "trace"])
    def test_is_refused_and_told_which_there_are(self, client, method):
        response = getattr(client, method)(URL)

        assert response.status_code == 405
        assert response["Allow"] == "GET, HEAD"
        assert json.loads(response.content) == {"errors": [{"message": "Method not allowed."}]}

    def test_is_refused_as_such_also_where_forms_are_checked_for_their_origin(self):
        assert Client(enforce_csrf_checks=True).post(URL).status_code == 405


@pytest.mark.usefixtures("initial_keys")
class TestInAHostProject:
    def test_login_required_middleware_lets_services_in(self, client):
        middleware = [*django_settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
        with override_settings(MIDDLEWARE=middleware):
            assert client.get("/admin/instaccess/").status_code == 302
            assert len(served(client)) == 2

    def test_the_language_of_the_reader_changes_nothing(self, client):
        middleware = [*django_settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
        before = client.get(URL).content
        with override_settings(MIDDLEWARE=middleware):
            assert client.get(URL, headers={"Accept-Language": "de"}).content == before

    def test_reading_it_writes_nothing(self, client, django_assert_num_queries):
        with django_assert_num_queries(1):
            client.get(URL)
        with django_assert_num_queries(0):
            client.get(URL)


class TestTheCopyThatOthersKeep:
    def test_k4_holds_a_key_before_it_may_sign(self, client):
        """Taken from a worker that heard of the key as late as may be, and kept for as long as may be."""
        with time_machine.travel(START, tick=False) as clock:
            provision.init()
            key = provision.generate(SIG)
            clock.shift(conf.key_cache_seconds)
            copy = served(client)
            clock.shift(conf.jwks_max_age)
            lifecycle.activate(key.kid)

        assert key.kid in [key["kid"] for key in copy]
