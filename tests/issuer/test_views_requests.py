"""Tests of the method, host, client address and user agent of a request (docs/wire-contract.md §1)."""

from __future__ import annotations

import pytest
from django.test import override_settings

from instaccess.models import IssuedToken
from tests.conftest import ISSUE_URL
from tests.support.answers import BAD_REQUEST, METHOD_NOT_ALLOWED, answer, claims_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]


class TestMethodsOtherThanPost:
    @pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"])
    @pytest.mark.parametrize("accept", ["text/html", "*/*"])
    def test_p11_methods_other_than_post_and_options_get_a_405_in_json_with_the_allow_header(
        self, client, access_token, method, accept
    ):
        headers = {"Authorization": f"Bearer {access_token.token}", "Accept": accept}
        response = client.generic(method, ISSUE_URL, headers=headers)

        assert answer(response) == METHOD_NOT_ALLOWED
        assert response["Allow"] == "POST, OPTIONS"

    def test_p11_only_a_405_and_the_response_to_options_have_the_allow_header(
        self, throttled, slow_leak, post, client, access_token, make_access_token
    ):
        responses = [post(access_token) for _ in range(4)]
        responses += [post(), post("unknown"), post(access_token, url=f"{ISSUE_URL}?{'a=1&' * 2000}")]
        with override_settings(INSTACCESS={"ISSUER": ""}):
            responses.append(post(make_access_token()))

        assert [response.status_code for response in responses] == [201, 201, 201, 429, 401, 401, 400, 503]
        assert [response for response in responses if "Allow" in response] == []

    def test_p11_head_request_gets_a_405_without_a_body(self, client):
        response = client.head(ISSUE_URL)

        assert (response.status_code, response.content, response["Allow"]) == (405, b"", "POST, OPTIONS")

    def test_p11_issuer_ignores_the_method_override_header(self, client, access_token):
        headers = {"Authorization": f"Bearer {access_token.token}", "X-HTTP-Method-Override": "POST"}

        assert answer(client.get(ISSUE_URL, headers=headers)) == METHOD_NOT_ALLOWED

    def test_p11_options_request_without_credentials_gets_the_list_of_methods(self, client):
        response = client.options(ISSUE_URL)

        assert (response.status_code, response.content) == (204, b"")
        assert response["Allow"] == "POST, OPTIONS"
        assert response["Cache-Control"] == "no-store"

    def test_p11_issuer_issues_a_token_only_for_post(self, client, access_token):
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"):
            client.generic(method, ISSUE_URL, headers={"Authorization": f"Bearer {access_token.token}"})

        assert not IssuedToken.objects.exists()


class TestAHostThatIsNotAllowed:
    @pytest.mark.parametrize("host", ["evil.example", "testserver.evil.example", "a b", "testserver:x", "[::1", ""])
    @override_settings(MIDDLEWARE=[])
    def test_issuer_refuses_an_unknown_host_with_a_json_body_and_without_a_query(
        self, post, access_token, host, django_assert_num_queries
    ):
        with django_assert_num_queries(0):
            response = post(access_token, headers={"Host": host})

        assert answer(response) == BAD_REQUEST


class TestCanvasDomain:
    @pytest.mark.parametrize(
        ("host", "secure", "domain"),
        [
            ("canvas.example.edu", False, "canvas.example.edu"),
            ("Canvas.Example.EDU", False, "canvas.example.edu"),
            ("canvas.example.edu:80", False, "canvas.example.edu"),
            ("canvas.example.edu:443", True, "canvas.example.edu"),
            ("canvas.example.edu:8443", True, "canvas.example.edu:8443"),
            ("canvas.example.edu:443", False, "canvas.example.edu:443"),
            ("canvas.example.edu:80", True, "canvas.example.edu:80"),
        ],
    )
    def test_canvas_domain_contains_the_port_of_the_host_unless_the_port_is_the_default(
        self, post, access_token, host, secure, domain
    ):
        token = post(access_token, headers={"Host": host}, secure=secure).json()["token"]

        assert claims_of(token)["canvas_domain"] == domain
        assert IssuedToken.objects.get().canvas_domain == domain

    def test_non_canonical_forms_of_a_host_give_the_same_account(self, post, access_token):
        spellings = ["canvas.example.edu", "CANVAS.example.edu", "canvas.example.edu:8443", "canvas.example.edu."]
        accounts = {
            claims_of(post(access_token, headers={"Host": host}).json()["token"])["acct"] for host in spellings
        }

        assert len(accounts) == 1

    def test_canvas_domain_omits_the_trailing_dot_of_the_host(self, post, access_token):
        token = post(access_token, headers={"Host": "canvas.example.edu.:8443"}).json()["token"]

        assert claims_of(token)["canvas_domain"] == "canvas.example.edu:8443"

    def test_issuer_returns_400_if_the_host_is_longer_than_dns_allows(self, post, access_token):
        host = ".".join(["a" * 60] * 6) + ".example.edu"

        assert answer(post(access_token, headers={"Host": host})) == BAD_REQUEST

    def test_issuer_ignores_the_forwarded_host_unless_django_trusts_the_header(self, post, access_token):
        headers = {"Host": "canvas.example.edu", "X-Forwarded-Host": "other.example.edu"}
        token = post(access_token, headers=headers).json()["token"]

        assert claims_of(token)["canvas_domain"] == "canvas.example.edu"


class TestTheClientAddress:
    def test_client_address_is_the_address_of_the_peer_if_no_proxy_is_trusted(self, post, access_token):
        post(access_token, headers={"X-Forwarded-For": "203.0.113.9"}, REMOTE_ADDR="198.51.100.7")

        assert IssuedToken.objects.get().ip_address == "198.51.100.7"

    @pytest.mark.parametrize(
        ("hops", "forwarded", "address"),
        [
            (1, "203.0.113.9", "203.0.113.9"),
            (1, "6.6.6.6, 203.0.113.9", "203.0.113.9"),
            (2, "6.6.6.6, 203.0.113.9, 10.0.0.1", "203.0.113.9"),
            (2, "203.0.113.9", "198.51.100.7"),
            (1, "2001:db8::1", "2001:db8::1"),
            (1, "<script>", None),
        ],
    )
    def test_client_address_is_counted_from_the_right_of_x_forwarded_for_if_proxies_are_trusted(
        self, post, access_token, hops, forwarded, address
    ):
        with override_settings(INSTACCESS={"TRUSTED_PROXIES": hops}):
            response = post(access_token, headers={"X-Forwarded-For": forwarded}, REMOTE_ADDR="198.51.100.7")

        assert response.status_code == 201
        assert IssuedToken.objects.get().ip_address == address

    @pytest.mark.parametrize("peer", ["", "unix:", "nonsense"])
    def test_audit_row_has_no_client_address_if_the_peer_is_unknown(self, post, access_token, peer):
        assert post(access_token, REMOTE_ADDR=peer).status_code == 201
        assert IssuedToken.objects.get().ip_address is None


class TestAHostileUserAgent:
    @pytest.mark.parametrize(
        "text",
        [
            "a\x00b",
            "a\r\nSet-Cookie: x=1",
            "\x1b[31mred\x1b[0m",
            "\x9b31mred",
            "<script>alert(1)</script>",
            "x" * 100_000,
            "é\xff",
            "%s %(x)s {0}",
        ],
    )
    def test_a5_audit_row_contains_the_user_agent_without_control_characters(self, client, access_token, text):
        response = client.post(ISSUE_URL, HTTP_AUTHORIZATION=f"Bearer {access_token.token}", HTTP_USER_AGENT=text)

        assert response.status_code == 201
        stored = IssuedToken.objects.get().user_agent
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in stored)
        assert len(stored) == min(len(text), 512)

    def test_a5_audit_row_contains_an_empty_string_if_the_user_agent_is_missing(self, client, access_token):
        client.post(ISSUE_URL, HTTP_AUTHORIZATION=f"Bearer {access_token.token}")

        assert IssuedToken.objects.get().user_agent == ""
