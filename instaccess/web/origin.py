"""The host and the client address of a request, and the account that belongs to the host."""

from __future__ import annotations

import ipaddress
import uuid
from functools import lru_cache

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from django.http.request import split_domain_port

from ..conf import conf
from ..exceptions import ConfigError, InstAccessError

_DEFAULT_PORTS = {"http": "80", "https": "443"}
_MAX_HOST_CHARS, _MAX_PORT_CHARS = 253, 5
_MAX_ACCOUNT_CHARS = 255
_MAX_ADDRESS_CHARS = 64
"""The maximum length of an address with brackets, zone and port. Longer strings are invalid and are not cached."""


def request_domain(request: HttpRequest) -> str:
    """Return the host of a request in canonical form: in lower case, without a trailing dot or the default port.

    An account may be derived from the host. If one host had several forms, a client could choose between accounts.

    Raises DisallowedHost if ALLOWED_HOSTS doesn't contain the host, if the host is longer than DNS allows
    (RFC 1035 §2.3.4), or if the port has more than five digits.
    """
    name, port = split_domain_port(request.get_host())
    port = port.lstrip("0")
    if len(name) > _MAX_HOST_CHARS or len(port) > _MAX_PORT_CHARS:
        raise DisallowedHost("the host or the port is too long")
    if not port or port == _DEFAULT_PORTS.get(request.scheme or ""):
        return name
    return f"{name}:{port}"


def client_address(request: HttpRequest) -> str | None:
    """Return the client's IP address, or None if the address is invalid.

    If TRUSTED_PROXIES is 0, the address is REMOTE_ADDR. If TRUSTED_PROXIES is n, the address is the n-th entry from
    the right of X-Forwarded-For. Each trusted proxy appends the address of its client, so the outermost trusted proxy
    appended the n-th entry. A client can forge all entries further left. If there are fewer than n entries, the
    request bypassed a proxy, and the address is REMOTE_ADDR.
    """
    address = request.META.get("REMOTE_ADDR", "")
    if hops := conf.trusted_proxies:
        chain = [entry.strip() for entry in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
        if len(chain) >= hops and chain[-hops]:
            address = chain[-hops]
    return _parse_address(address) if len(address) <= _MAX_ADDRESS_CHARS else None


def client_address_or_none(request: HttpRequest) -> str | None:
    """Return the client's IP address for a log line, or None if the address or TRUSTED_PROXIES is invalid."""
    try:
        return client_address(request)
    except InstAccessError:
        return None


@lru_cache(maxsize=1024)
def _parse_address(address: str) -> str | None:
    # Remove the port, because some proxies append a port to the address: "[2001:db8::1]:4711" or "192.0.2.1:4711".
    if address.startswith("["):
        address = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        address = address.partition(":")[0]
    try:
        return str(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return None


def account_uuid(host: str) -> str:
    """Return the uuid of the root account of a host (`name` or `name:port`).

    The uuid is ACCOUNT_UUID or, if ACCOUNT_UUID is not set, the result of ACCOUNT_HOOK for the host name. If neither
    setting is set, the uuid is derived from the host name (RFC 9562 §5.5, DNS namespace), so the uuid is stable
    without being stored. The port is ignored, because clients can choose the port freely.

    Raises ConfigError if ACCOUNT_HOOK doesn't return a string of 1 to 255 characters.
    """
    if (fixed := conf.account_uuid) is not None:
        return fixed
    name = host if host.endswith("]") else host.rsplit(":", 1)[0]
    if (hook := conf.account_hook) is not None:
        value = hook(name)
        if not isinstance(value, str) or not 1 <= len(value) <= _MAX_ACCOUNT_CHARS:
            raise ConfigError(
                f"INSTACCESS['ACCOUNT_HOOK'] must return a string of 1 to {_MAX_ACCOUNT_CHARS} characters",
                setting="ACCOUNT_HOOK",
            )
        return value
    return _derive_account(name)


@lru_cache(maxsize=256)
def _derive_account(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
