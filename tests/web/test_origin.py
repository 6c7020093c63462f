"""Where a request came from and what it was sent to, whatever its headers claim."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from django.core.exceptions import DisallowedHost
from django.test import RequestFactory, override_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from instaccess.models import IssuedToken
from instaccess.web import origin


def domain(host: str, *, secure: bool = True, **meta: Any) -> str:
    return origin.request_domain(RequestFactory().post("/", headers={"Host": host}, secure=secure, **meta))


def address(remote: str, forwarded: str | None = None, *, hops: int = 0) -> str | None:
    meta = {"REMOTE_ADDR": remote} | ({} if forwarded is None else {"HTTP_X_FORWARDED_FOR": forwarded})
    with override_settings(INSTACCESS={"TRUSTED_PROXIES": hops}):
        return origin.client_address(RequestFactory().post("/", **meta))


class TestTheDomain:
    @pytest.fixture(autouse=True)
    def known_hosts(self) -> Any:
        with override_settings(ALLOWED_HOSTS=["canvas.example.edu", "127.0.0.1", "[::1]", ".tenant.example"]):
            yield

    @pytest.mark.parametrize("secure", [True, False])
    def test_is_the_host_of_the_request(self, secure):
        assert domain("canvas.example.edu", secure=secure) == "canvas.example.edu"

    @pytest.mark.parametrize(("port", "secure"), [("443", True), ("80", False)])
    def test_leaves_the_schemes_own_port_out(self, port, secure):
        assert domain(f"canvas.example.edu:{port}", secure=secure) == "canvas.example.edu"

    @pytest.mark.parametrize(("port", "secure"), [("80", True), ("443", False), ("8443", True), ("8000", False)])
    def test_keeps_any_other_port(self, port, secure):
        assert domain(f"canvas.example.edu:{port}", secure=secure) == f"canvas.example.edu:{port}"

    @pytest.mark.parametrize(
        ("host", "expected"),
        [("[::1]", "[::1]"), ("[::1]:443", "[::1]"), ("[::1]:8443", "[::1]:8443"), ("127.0.0.1:443", "127.0.0.1")],
    )
    def test_may_be_an_address(self, host, expected):
        assert domain(host) == expected

    @pytest.mark.parametrize(
        "spelling",
        [
            "CANVAS.Example.EDU",
            "canvas.example.edu.",
            "canvas.example.edu.:443",
            "canvas.example.edu:0443",
            "canvas.example.edu:00000443",
            "canvas.example.edu:0",
        ],
    )
    def test_is_one_however_the_client_spells_it(self, spelling):
        assert domain(spelling) == "canvas.example.edu"
        assert origin.account_uuid(domain(spelling)) == origin.account_uuid("canvas.example.edu")

    @pytest.mark.parametrize(
        "host", ["evil.example", "canvas.example.edu.evil.example", "canvas.example.edu@evil", ""]
    )
    def test_is_refused_where_it_is_not_ours(self, host):
        with pytest.raises(DisallowedHost):
            domain(host)

    def test_fits_its_column_in_the_audit_or_is_refused(self):
        name = ("x" * 60 + ".") * 3 + "x" * (253 - 183 - len(".tenant.example")) + ".tenant.example"
        column = IssuedToken._meta.get_field("canvas_domain")

        assert domain(f"{name}:65535") == f"{name}:65535"
        assert len(f"{name}:65535") <= column.max_length
        for too_long in (f"x{name}", "canvas.example.edu:123456"):
            with pytest.raises(DisallowedHost):
                domain(too_long)

    def test_does_not_follow_a_forwarded_host_unless_django_was_told_to(self):
        forwarded = {"HTTP_X_FORWARDED_HOST": "a.tenant.example"}

        assert domain("canvas.example.edu", **forwarded) == "canvas.example.edu"
        with override_settings(USE_X_FORWARDED_HOST=True):
            assert domain("canvas.example.edu", **forwarded) == "a.tenant.example"


class TestTheAddressOfAClient:
    @pytest.mark.parametrize("forwarded", [None, "203.0.113.9", "203.0.113.9, 198.51.100.7"])
    def test_is_that_of_the_connection_when_no_proxy_is_trusted(self, forwarded):
        assert address("192.0.2.1", forwarded) == "192.0.2.1"

    @pytest.mark.parametrize(("hops", "expected"), [(1, "198.51.100.7"), (2, "203.0.113.9"), (3, "10.9.9.9")])
    def test_is_what_the_outermost_trusted_proxy_saw(self, hops, expected):
        assert address("192.0.2.1", "10.9.9.9, 203.0.113.9, 198.51.100.7", hops=hops) == expected

    def test_is_never_what_the_client_put_in_front(self):
        forged = "127.0.0.1, 10.0.0.1, ::1, "

        assert address("192.0.2.1", forged + "203.0.113.9", hops=1) == "203.0.113.9"

    def test_is_that_of_the_connection_when_the_request_came_past_the_proxies(self):
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
    def test_is_read_in_the_ways_proxies_write_it(self, written, expected):
        # How an address within an address is written differs between Python's versions.
        assert address("192.0.2.254", written, hops=1) == str(ipaddress.ip_address(expected))

    @pytest.mark.parametrize(
        "nonsense", ["unknown", "_hidden", "' OR 1=1 --", "<script>", "999.1.1.1", "[", "[]:1", "é"]
    )
    def test_is_not_known_where_the_proxy_wrote_none(self, nonsense):
        # Better none in the audit than that of the proxy, which would look like the client's.
        assert address("192.0.2.254", nonsense, hops=1) is None

    @pytest.mark.parametrize("remote", ["", "unix:", "/run/app.sock"])
    def test_is_not_known_behind_a_unix_socket(self, remote):
        assert address(remote) is None
        assert address(remote, "203.0.113.9", hops=1) == "203.0.113.9"

    @settings(deadline=None)
    @given(forwarded=st.text(max_size=100), hops=st.integers(0, 10))
    def test_is_an_address_or_none_whatever_comes(self, forwarded, hops):
        found = address("192.0.2.1", forwarded, hops=hops)

        assert found is None or str(ipaddress.ip_address(found)) == found
