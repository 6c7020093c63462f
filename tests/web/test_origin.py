"""Tests of the domain, the account and the client address of a request, with and without forged headers."""

from __future__ import annotations

import ipaddress
import uuid
from typing import Any

import pytest
from django.core.exceptions import DisallowedHost
from django.test import RequestFactory, override_settings
from hypothesis import given
from hypothesis import strategies as st

from instaccess.exceptions import ConfigError
from instaccess.models import IssuedToken
from instaccess.web import origin


def domain(host: str, *, secure: bool = True, **meta: Any) -> str:
    return origin.request_domain(RequestFactory().post("/", headers={"Host": host}, secure=secure, **meta))


def address(remote: str, forwarded: str | None = None, *, hops: int = 0) -> str | None:
    meta = {"REMOTE_ADDR": remote} | ({} if forwarded is None else {"HTTP_X_FORWARDED_FOR": forwarded})
    with override_settings(INSTACCESS={"TRUSTED_PROXIES": hops}):
        return origin.client_address(RequestFactory().post("/", **meta))


class TestTheDomainOfARequest:
    @pytest.fixture(autouse=True)
    def known_hosts(self) -> Any:
        with override_settings(ALLOWED_HOSTS=["canvas.example.edu", "127.0.0.1", "[::1]", ".tenant.example"]):
            yield

    @pytest.mark.parametrize("secure", [True, False])
    def test_domain_is_the_host_of_the_request(self, secure):
        assert domain("canvas.example.edu", secure=secure) == "canvas.example.edu"

    @pytest.mark.parametrize(("port", "secure"), [("443", True), ("80", False)])
    def test_domain_omits_the_default_port(self, port, secure):
        assert domain(f"canvas.example.edu:{port}", secure=secure) == "canvas.example.edu"

    @pytest.mark.parametrize(("port", "secure"), [("80", True), ("443", False), ("8443", True), ("8000", False)])
    def test_domain_keeps_a_port_that_is_not_the_default(self, port, secure):
        assert domain(f"canvas.example.edu:{port}", secure=secure) == f"canvas.example.edu:{port}"

    @pytest.mark.parametrize(
        ("host", "expected"),
        [("[::1]", "[::1]"), ("[::1]:443", "[::1]"), ("[::1]:8443", "[::1]:8443"), ("127.0.0.1:443", "127.0.0.1")],
    )
    def test_domain_can_be_an_ip_address(self, host, expected):
        assert domain(host) == expected

    @pytest.mark.parametrize(
        "host",
        [
            "CANVAS.Example.EDU",
            "canvas.example.edu.",
            "canvas.example.edu.:443",
            "canvas.example.edu:0443",
            "canvas.example.edu:00000443",
            "canvas.example.edu:0",
        ],
    )
    def test_domain_and_account_are_the_same_for_every_form_of_the_host(self, host):
        assert domain(host) == "canvas.example.edu"
        assert origin.account_uuid(domain(host)) == origin.account_uuid("canvas.example.edu")

    @pytest.mark.parametrize(
        "host", ["evil.example", "canvas.example.edu.evil.example", "canvas.example.edu@evil", ""]
    )
    def test_domain_of_a_host_that_is_not_allowed_is_refused(self, host):
        with pytest.raises(DisallowedHost):
            domain(host)

    def test_domain_that_does_not_fit_into_the_audit_log_is_refused(self):
        name = ("x" * 60 + ".") * 3 + "x" * (253 - 183 - len(".tenant.example")) + ".tenant.example"
        column = IssuedToken._meta.get_field("canvas_domain")

        assert domain(f"{name}:65535") == f"{name}:65535"
        assert len(f"{name}:65535") <= column.max_length
        for too_long in (f"x{name}", "canvas.example.edu:123456"):
            with pytest.raises(DisallowedHost):
                domain(too_long)

    def test_domain_ignores_x_forwarded_host_unless_django_is_configured_to_use_the_header(self):
        forwarded = {"HTTP_X_FORWARDED_HOST": "a.tenant.example"}

        assert domain("canvas.example.edu", **forwarded) == "canvas.example.edu"
        with override_settings(USE_X_FORWARDED_HOST=True):
            assert domain("canvas.example.edu", **forwarded) == "a.tenant.example"


class TestTheClientAddress:
    @pytest.mark.parametrize("forwarded", [None, "203.0.113.9", "203.0.113.9, 198.51.100.7"])
    def test_client_address_is_remote_addr_if_no_proxy_is_trusted(self, forwarded):
        assert address("192.0.2.1", forwarded) == "192.0.2.1"

    @pytest.mark.parametrize(("hops", "expected"), [(1, "198.51.100.7"), (2, "203.0.113.9"), (3, "10.9.9.9")])
    def test_client_address_is_the_address_that_the_outermost_trusted_proxy_recorded(self, hops, expected):
        assert address("192.0.2.1", "10.9.9.9, 203.0.113.9, 198.51.100.7", hops=hops) == expected

    def test_client_address_ignores_addresses_that_the_client_forged(self):
        forged = "127.0.0.1, 10.0.0.1, ::1, "

        assert address("192.0.2.1", forged + "203.0.113.9", hops=1) == "203.0.113.9"

    def test_client_address_is_remote_addr_if_the_request_bypassed_a_proxy(self):
        assert address("192.0.2.1", None, hops=1) == "192.0.2.1"
        assert address("192.0.2.1", "203.0.113.9", hops=2) == "192.0.2.1"
        assert address("192.0.2.1", "203.0.113.9, ", hops=1) == "192.0.2.1"

    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            ("192.0.2.1:4711", "192.0.2.1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:DB8:0:0::1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ],
    )
    def test_client_address_accepts_the_address_formats_of_proxies(self, written, expected):
        # Compute the expected address, because Python versions format IPv4-mapped IPv6 addresses differently.
        assert address("192.0.2.254", written, hops=1) == str(ipaddress.ip_address(expected))

    @pytest.mark.parametrize(
        "invalid", ["unknown", "_hidden", "' OR 1=1 --", "<script>", "999.1.1.1", "[", "[]:1", "é"]
    )
    def test_client_address_is_none_if_the_proxy_sent_an_invalid_address(self, invalid):
        # The audit log must not show the address of the proxy as the address of the client.
        assert address("192.0.2.254", invalid, hops=1) is None

    @pytest.mark.parametrize("remote", ["", "unix:", "/run/app.sock"])
    def test_client_address_is_the_forwarded_address_or_none_if_the_server_uses_a_unix_socket(self, remote):
        assert address(remote) is None
        assert address(remote, "203.0.113.9", hops=1) == "203.0.113.9"

    def test_client_address_is_none_if_the_received_string_is_longer_than_64_characters(self):
        assert address("fe80::1%" + "e" * 56) == "fe80::1"
        assert address("fe80::1%" + "e" * 57) is None
        assert address("fe80::1%" + "e" * 100) is None

    def test_client_address_of_a_log_line_is_none_if_trusted_proxies_is_invalid(self):
        request = RequestFactory().post("/", REMOTE_ADDR="192.0.2.1")
        assert origin.client_address_or_none(request) == "192.0.2.1"
        with override_settings(INSTACCESS={"TRUSTED_PROXIES": "1"}):
            assert origin.client_address_or_none(request) is None

    @given(forwarded=st.text(max_size=100), hops=st.integers(0, 10))
    def test_client_address_is_valid_or_none_for_arbitrary_headers(self, forwarded, hops):
        result = address("192.0.2.1", forwarded, hops=hops)

        assert result is None or str(ipaddress.ip_address(result)) == result


class TestTheAccountOfAHost:
    @pytest.mark.parametrize(
        ("host", "name"),
        [
            ("canvas.example.edu", "canvas.example.edu"),
            ("canvas.example.edu:8443", "canvas.example.edu"),
            ("127.0.0.1:8443", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[::1]:8443", "[::1]"),
        ],
    )
    def test_account_depends_on_the_host_name_and_not_on_the_port(self, host, name):
        assert origin.account_uuid(host) == str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
        with override_settings(INSTACCESS={"ACCOUNT_HOOK": lambda host: f"account of {host}"}):
            assert origin.account_uuid(host) == f"account of {name}"

    def test_account_is_the_value_of_the_setting_account_uuid_if_the_setting_is_set(self):
        with override_settings(INSTACCESS={"ACCOUNT_UUID": "ours", "ACCOUNT_HOOK": lambda host: "theirs"}):
            assert origin.account_uuid("canvas.example.edu") == "ours"

    @pytest.mark.parametrize("account", ["a", "ab", "x" * 254, "x" * 255])
    def test_account_hook_can_return_a_string_of_1_to_255_characters(self, account):
        with override_settings(INSTACCESS={"ACCOUNT_HOOK": lambda host: account}):
            assert origin.account_uuid("canvas.example.edu") == account

    @pytest.mark.parametrize("account", ["", "x" * 256, None, 7, True, b"account", ["a"]])
    def test_account_hook_that_returns_another_value_raises_config_error(self, account):
        with (
            override_settings(INSTACCESS={"ACCOUNT_HOOK": lambda host: account}),
            pytest.raises(ConfigError, match="must return a string of 1 to 255 characters") as caught,
        ):
            origin.account_uuid("canvas.example.edu")
        assert caught.value.setting == "ACCOUNT_HOOK"
