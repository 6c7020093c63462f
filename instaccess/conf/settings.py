"""The INSTACCESS settings, with one typed property of `conf` per setting.

A property validates its setting at each access. The dictionary INSTACCESS is cached until a setting changes, so
`override_settings` works as usual. If a value is invalid, the property raises ConfigError. The message contains the
setting and the accepted values. `conf/checks.py` reads every property, so `manage.py check` reports invalid values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver

from ..exceptions import ConfigError
from ..opaque import OpaqueText, concealed
from ..tokens import MAX_LIFETIME
from .key_settings import KeySettings
from .values import did_you_mean, read_project_settings

SCOPE = "url:POST|/api/v1/inst_access_tokens"
"""The OAuth2 scope that the issuing endpoint requires.

The scope is not a setting, because clients of Canvas already request the scope by this name.
"""

REVOCATION_SECONDS = 5
"""The maximum time, in seconds, from a revocation until gateways and their proxies refuse the revoked tokens."""

KEEPING_SLACK = 2
"""The additional time, in seconds, for which a proxy may use a decision of the gateway after KEEP_DECISION_SECONDS.

nginx compares whole seconds, so nginx keeps a response for up to one second longer than the gateway allows. Reading
the deny list and sending the response to the proxy may take one more second.
"""

_OFF = object()
_SECRET = re.compile(r"[A-Za-z0-9._~+/-]{32,255}", re.ASCII)


class Conf(KeySettings):
    """The settings of this deployment. Use the module's instance, `conf`.

    Args:
        written: a dictionary to read instead of `settings.INSTACCESS`. Unknown names in the dictionary are ignored.
    """

    @concealed
    def _load(self) -> Mapping[str, Any]:
        # If INSTACCESS contains an unknown setting, every read of a setting raises ConfigError. If unknown
        # settings were ignored, a service with a misspelled ACCOUNT_UUID, for example, would accept tokens of every
        # account. A system check isn't enough, because a project that doesn't list this app in INSTALLED_APPS doesn't
        # run the check.
        written = read_project_settings()
        for name in written:
            if name not in SETTINGS:
                raise ConfigError(
                    f"INSTACCESS[{name!r}] is not a setting of instaccess. {did_you_mean(name, SETTINGS)}"
                    "The documentation lists all settings",
                    setting=str(name),
                )
        return written

    # These settings affect the claims of tokens.

    @property
    def issuer(self) -> str:
        """The `iss` claim of issued tokens."""
        return self._string("ISSUER", "instructure:inst_access")

    @property
    def accepted_issuers(self) -> list[str]:
        """The accepted values of the `iss` claim. None, the default, means ISSUER alone."""
        value = self._get("ACCEPTED_ISSUERS", None)
        if value is None:
            return [self.issuer]
        strings = isinstance(value, (list, tuple)) and all(
            isinstance(issuer, str) and 1 <= len(issuer) <= 255 for issuer in value
        )
        if not strings or not value:
            raise self._invalid("ACCEPTED_ISSUERS", "None, or a list of one or more strings of 1 to 255 characters")
        return list(value)

    @property
    def lifetime(self) -> int:
        """The time, in seconds, until an issued token expires: at most one hour."""
        return self._integer("LIFETIME", MAX_LIFETIME, 1, MAX_LIFETIME)

    @property
    def region(self) -> str | None:
        """The `region` claim of issued tokens. If None, the claim is omitted."""
        return self._optional_string("REGION")

    @property
    def shard_id(self) -> int | str | None:
        """The `canvas_shard_id` claim of issued tokens. If None, the claim is omitted."""
        value = self._get("SHARD_ID", None)
        if value is None or (type(value) is int and value > 0) or (isinstance(value, str) and value):
            return value
        raise self._invalid("SHARD_ID", "a positive integer, a non-empty string, or None")

    @property
    def account_uuid(self) -> str | None:
        """The `acct` claim of every token. If None, `web.account_uuid` determines the claim from the host."""
        return self._optional_string("ACCOUNT_UUID")

    @property
    def account_hook(self) -> Callable[[str], str] | None:
        """A callable `(host name without port) -> account uuid`, for deployments with several root accounts."""
        return self._function("ACCOUNT_HOOK")

    @property
    def user_uuid_field(self) -> str | None:
        """The field of the user model that contains the uuid. If None, uuids are stored in `UserIdentity`."""
        return self._optional_string("USER_UUID_FIELD")

    @property
    def claims_hook(self) -> Callable[[Any, Any], Mapping[str, Any]] | None:
        """A callable `(user, application) -> extra claims`. Claims with reserved names are dropped."""
        return self._function("CLAIMS_HOOK")

    @property
    def masquerade_hook(self) -> Callable[[Any, Any], bool] | None:
        """A callable `(caller, target) -> bool` that replaces the rule `users.may_masquerade`."""
        return self._function("MASQUERADE_HOOK")

    # These settings affect throttling.

    @property
    def throttle_limit(self) -> int | None:
        """The level at which an access token's bucket is full and requests are throttled.

        If None, requests are not throttled.
        """
        limit = self._get("THROTTLE_LIMIT", 600)
        return None if limit is None else self._integer("THROTTLE_LIMIT", limit, 1, 1_000_000)

    @property
    def throttle_cost(self) -> int:
        """The amount by which an issued token raises the level of the access token's bucket."""
        return self._integer("THROTTLE_COST", 200, 1, 1_000_000)

    @property
    def throttle_leak(self) -> int:
        """The amount by which the level of a bucket falls per second."""
        return self._integer("THROTTLE_LEAK", 10, 1, 1_000_000)

    @property
    def throttle_status(self) -> int:
        """The HTTP status of the response to a throttled request: 429, or 403 as in older versions of Canvas."""
        return self._choice("THROTTLE_STATUS", 429, (429, 403))

    @property
    def throttle_cache(self) -> str:
        """The alias of the Django cache that stores the buckets.

        If the cache isn't Redis, a burst of requests may exceed the limit.
        """
        alias = self._string("THROTTLE_CACHE", "default")
        if alias not in settings.CACHES:
            raise self._invalid("THROTTLE_CACHE", "an alias that CACHES defines")
        return alias

    # These settings affect the issuing endpoint.

    @property
    def allow_unencrypted(self) -> bool:
        """Whether the issuing endpoint accepts the `unencrypted` parameter while DEBUG is on."""
        return self._boolean("ALLOW_UNENCRYPTED", default=False)

    @property
    def realm(self) -> str:
        """The realm in the `WWW-Authenticate` header."""
        realm = self._string("REALM", "canvas-lms")
        if not realm.isascii() or not realm.isprintable() or '"' in realm or "\\" in realm:
            raise self._invalid("REALM", "printable ASCII without quotes or backslashes")
        return realm

    @property
    def allow_token_in_parameters(self) -> bool:
        """Whether the access token is accepted in the query or a form body.

        Canvas accepts access tokens in both places, although RFC 6750 §2.3 advises against tokens in the query.
        """
        return self._boolean("ALLOW_TOKEN_IN_PARAMETERS", default=False)

    @property
    def trusted_proxies(self) -> int:
        """The number of trusted proxies that append an address to X-Forwarded-For. If 0, the header is ignored."""
        return self._integer("TRUSTED_PROXIES", 0, 0, 10)

    # These settings affect gateways and services.

    @property
    @concealed
    def decryption_keys(self) -> list[OpaqueText] | None:
        """The private encryption keys of a gateway, newest first: PEM or JWK strings, or paths of files.

        If None, the keys are read from this deployment's database.
        """
        return self._key_list("DECRYPTION_KEYS")

    @property
    @concealed
    def verification_keys(self) -> list[OpaqueText] | str | None:
        """The public signing keys of a gateway or a service: a list, or a JWKS URL.

        Each entry of the list is a PEM, JWK or JWK set string, or the path of a file. If None, the keys are read from
        this deployment's database.
        """
        value = self._get("VERIFICATION_KEYS", None)
        if not isinstance(value, str):
            return self._key_list("VERIFICATION_KEYS")
        if "://" not in value:
            raise self._invalid(
                "VERIFICATION_KEYS", "an https:// URL, or a list of keys, each a PEM or JWK string or a file's path"
            )
        return self._url("VERIFICATION_KEYS", value, allow_http=self.allow_http_urls)

    @property
    def deny_list(self) -> str:
        """The source of a gateway's deny list: `database`, or the URL of an issuer's revocation list."""
        value = self._get("DENY_LIST", "database")
        if not isinstance(value, str):
            raise self._invalid("DENY_LIST", "'database' or an https:// URL")
        return value if value == "database" else self._url("DENY_LIST", value, allow_http=self.allow_http_urls)

    @property
    def deny_list_seconds(self) -> int:
        """The time, in seconds, for which a gateway caches the deny list.

        The maximum is 4, because a revocation must take effect within 5 seconds.
        """
        return self._integer("DENY_LIST_SECONDS", 2, 0, 4)

    @property
    def max_staleness(self) -> int:
        """The additional time, in seconds, for which cached keys or a cached deny list are used during an outage."""
        return self._integer("MAX_STALENESS", 60, 0, 3600)

    @property
    @concealed
    def service_secrets(self) -> list[OpaqueText]:
        """The secrets with which gateways read `/internal/services/revocations`.

        A gateway sends the first secret. An issuer accepts every secret.
        """
        value = self._get("SERVICE_SECRETS", [])
        if not isinstance(value, (list, tuple)) or not all(
            isinstance(s, str) and _SECRET.fullmatch(s) for s in value
        ):
            raise self._invalid(
                "SERVICE_SECRETS", "a list of strings of 32 to 255 characters from A-Z a-z 0-9 - . _ ~ + /"
            )
        return [OpaqueText(secret) for secret in value]

    @property
    def user_hook(self) -> Callable[[Any], Any] | None:
        """A callable `(claims) -> user or None` that a service calls to look up the user of a token."""
        return self._function("USER_HOOK")

    @property
    def other_bearers(self) -> str:
        """Whether a gateway refuses (`refuse`) or forwards (`pass`) bearer tokens that aren't InstAccess tokens."""
        return self._choice("OTHER_BEARERS", "refuse", ("refuse", "pass"))

    @property
    def keep_decision_seconds(self) -> int:
        """The time, in seconds, for which a proxy may keep a 204 from the gateway. If 0, a proxy must not keep a 204.

        If the setting isn't 0, the sum of DENY_LIST_SECONDS, KEEP_DECISION_SECONDS and KEEPING_SLACK must be at most
        five seconds, so that a revocation takes effect within five seconds.
        """
        seconds = self._get("KEEP_DECISION_SECONDS", _OFF)
        if seconds is _OFF:
            # Return before the validation, because the gateway reads this property for each request, and validation
            # would take longer.
            return 0
        read_after = self.deny_list_seconds
        return self._integer(
            "KEEP_DECISION_SECONDS",
            seconds,
            0,
            max(0, REVOCATION_SECONDS - KEEPING_SLACK - read_after),
            f" if DENY_LIST_SECONDS is {read_after}, because a revocation takes effect within {REVOCATION_SECONDS} s",
        )

    @property
    def remembered_tokens(self) -> int:
        """The maximum number of decrypted tokens that a gateway process caches, to save RSA operations."""
        return self._integer("REMEMBERED_TOKENS", 5000, 0, 1_000_000)

    @property
    def allow_http_urls(self) -> bool:
        """Whether keys and the deny list may be read over http. A man in the middle can then replace the keys."""
        return self._boolean("ALLOW_HTTP_URLS", default=False)

    # These settings affect the audit log.

    @property
    def audit_retention_days(self) -> int | None:
        """The age, in days, at which `instaccess_tokens prune` deletes an audit row.

        If None, the command requires `--older-than`.
        """
        days = self._get("AUDIT_RETENTION_DAYS", None)
        return None if days is None else self._integer("AUDIT_RETENTION_DAYS", days, 1, 36_500)

    @property
    def audit_user_names(self) -> bool:
        """Whether audit rows contain user names. Audit rows always contain the uuids of the users."""
        return self._boolean("AUDIT_USER_NAMES", default=True)


conf = Conf()

_NOT_SETTINGS = {"key_encryption_keys_are_derived", "key_algorithms"}
SETTINGS = {
    name.upper(): name
    for name, member in (vars(KeySettings) | vars(Conf)).items()
    if isinstance(member, property) and name not in _NOT_SETTINGS
}
"""A mapping from the name of each setting to the name of the `Conf` property that reads the setting."""


@receiver(setting_changed)
def _reset_conf(**kwargs: Any) -> None:
    # Drop the cached settings after a change of any setting, not only of INSTACCESS. Only tests change settings, and
    # reading INSTACCESS again is fast.
    conf.reset()
