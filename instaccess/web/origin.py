"""What a request says about where it came from and what it was sent to."""

from __future__ import annotations

import ipaddress
import uuid
from functools import lru_cache

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from django.http.request import split_domain_port

from ..conf import conf
from ..exceptions import ConfigError

_DEFAULT_PORTS = {"http": "80", "https": "443"}
_MAX_HOST_CHARS, _MAX_PORT_CHARS = 253, 5
_MAX_ACCOUNT_CHARS = 255
_MAX_ADDRESS_CHARS = 64
"""Of the longest address, in brackets, with a zone and a port. More is none, and need not be remembered."""


def request_domain(request: HttpRequest) -> str:
    """Host the request was sent to, in its one spelling: lower case, no trailing dot, its port unless that is the
    scheme's own. Otherwise a client could choose, by the spelling, between accounts that are derived from the host.

    Raises DisallowedHost for one that ALLOWED_HOSTS does not know, or longer than DNS allows (RFC 1035 §2.3.4).
    """
    name, port = split_domain_port(request.get_host())
    port = port.lstrip("0")
    if len(name) > _MAX_HOST_CHARS or len(port) > _MAX_PORT_CHARS:
        raise DisallowedHost("a host or port longer than there are")
    if not port or port == _DEFAULT_PORTS.get(request.scheme or ""):
        return name
    return f"{name}:{port}"


def client_address(request: HttpRequest) -> str | None:
    """The client's IP address: REMOTE_ADDR, or with TRUSTED_PROXIES = n the n-th from the right of X-Forwarded-For.

    Each of our n proxies appended the address it was called from, so the n-th from the right is what the outermost
    saw; whatever stands to the left of it the client may have made up. None where that is no address, and REMOTE_ADDR
    where the header has fewer entries (the request did not come through all proxies).
    """
    address = request.META.get("REMOTE_ADDR", "")
    if hops := conf.trusted_proxies:
        chain = [entry.strip() for entry in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
        if len(chain) >= hops and chain[-hops]:
            address = chain[-hops]
    return _address(address) if len(address) <= _MAX_ADDRESS_CHARS else None


@lru_cache(maxsize=1024)
def _address(address: str) -> str | None:
    # Some proxies write "[2001:db8::1]:4711" or "192.0.2.1:4711".
    if address.startswith("["):
        address = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        address = address.partition(":")[0]
    try:
        return str(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return None


def account_uuid(host: str) -> str:
    """The root account that a host (`name` or `name:port`) serves.

    ACCOUNT_UUID where one deployment is one account, ACCOUNT_HOOK where the host decides; else derived from the
    host's name (RFC 9562 §5.5, DNS namespace), so that it is stable and needs no table.
    """
    if (fixed := conf.account_uuid) is not None:
        return fixed
    if (hook := conf.account_hook) is not None:
        value = hook(host)
        if not isinstance(value, str) or not 1 <= len(value) <= _MAX_ACCOUNT_CHARS:
            raise ConfigError(
                f"INSTACCESS['ACCOUNT_HOOK'] must return a text of 1 to {_MAX_ACCOUNT_CHARS} characters",
                setting="ACCOUNT_HOOK",
            )
        return value
    return _derived_account(host if host.endswith("]") else host.rsplit(":", 1)[0])


@lru_cache(maxsize=256)
def _derived_account(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
