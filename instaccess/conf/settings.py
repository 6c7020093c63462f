"""Settings: `INSTACCESS = {…}`, one typed property a setting, read when asked for: `override_settings` just works.

Every property raises ConfigError, naming the setting and what it takes, for a bad value; `checks.py` reads them all,
so that `manage.py check` says it first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings

from .. import tokens
from ..tokens import CLOCK_SKEW, MAX_LEEWAY, MAX_LIFETIME
from . import values

SCOPE = "url:POST|/api/v1/inst_access_tokens"
"""The OAuth2 scope that allows issuing, as Canvas spells it. Not a setting: clients ask for it by name."""

DERIVED = "SECRET_KEY"
"""Entry of KEY_ENCRYPTION_KEYS that stands for the keys derived from SECRET_KEY and SECRET_KEY_FALLBACKS."""


class Conf:
    """The settings as they are now. Use the module's `conf`."""

    # What a token says

    @property
    def issuer(self) -> str:
        """`iss` of issued tokens, and the only one accepted."""
        return values.text("ISSUER", "instructure:inst_access")

    @property
    def lifetime(self) -> int:
        """Seconds a token lives, at most an hour."""
        return values.integer("LIFETIME", MAX_LIFETIME, 1, MAX_LIFETIME)

    @property
    def region(self) -> str | None:
        """`region` claim; left out when None."""
        return values.optional_text("REGION")

    @property
    def shard_id(self) -> int | str | None:
        """`canvas_shard_id` claim; left out when None."""
        value = values.get("SHARD_ID", None)
        if value is None or (type(value) is int and value > 0) or (isinstance(value, str) and value):
            return value
        raise values.invalid("SHARD_ID", "a positive integer, a text, or None")

    @property
    def account_uuid(self) -> str | None:
        """`acct` claim of every token; derived from the request's host when None (see `identity.account_uuid`)."""
        return values.optional_text("ACCOUNT_UUID")

    @property
    def account_hook(self) -> Callable[[str], str] | None:
        """Callable `(host) -> account uuid` for deployments with several root accounts."""
        return values.function("ACCOUNT_HOOK")

    @property
    def user_uuid_field(self) -> str | None:
        """Field of the user model that holds the uuid; a row of ours holds it when None."""
        return values.optional_text("USER_UUID_FIELD")

    @property
    def claims_hook(self) -> Callable[[Any, Any], Mapping[str, Any]] | None:
        """Callable `(user, application) -> extra claims`; it cannot set a reserved one."""
        return values.function("CLAIMS_HOOK")

    @property
    def masquerade_hook(self) -> Callable[[Any, Any], bool] | None:
        """Callable `(caller, target) -> bool` that decides instead of our rule who may get tokens for whom."""
        return values.function("MASQUERADE_HOOK")

    # How often

    @property
    def throttle_limit(self) -> int | None:
        """Level at which an access token's bucket is full and further requests are refused; None turns that off."""
        return (
            None if values.get("THROTTLE_LIMIT", 600) is None else values.integer("THROTTLE_LIMIT", 600, 1, 1_000_000)
        )

    @property
    def throttle_cost(self) -> int:
        """By how much a token raises the level."""
        return values.integer("THROTTLE_COST", 200, 1, 1_000_000)

    @property
    def throttle_leak(self) -> int:
        """By how much the level falls each second."""
        return values.integer("THROTTLE_LEAK", 10, 1, 1_000_000)

    @property
    def throttle_status(self) -> int:
        """Status of the refusal: 429, or 403 for clients that know only Canvas's older answer."""
        return values.choice("THROTTLE_STATUS", 429, (429, 403))

    @property
    def throttle_cache(self) -> str:
        """Alias of the Django cache that holds the buckets; exact over all processes where that is Redis."""
        alias = values.text("THROTTLE_CACHE", "default")
        if alias not in settings.CACHES:
            raise values.invalid("THROTTLE_CACHE", "the alias of one of CACHES")
        return alias

    # How it is made

    @property
    def encryption_alg(self) -> str:
        """JWE `alg`."""
        return values.choice("ENCRYPTION_ALG", "RSA-OAEP", tokens.KEY_ALGORITHMS + tokens.LEGACY_KEY_ALGORITHMS)

    @property
    def content_encryption(self) -> str:
        """JWE `enc`."""
        return values.choice("CONTENT_ENCRYPTION", "A128CBC-HS256", tokens.CONTENT_ALGORITHMS)

    @property
    def signing_alg(self) -> str:
        """JWS `alg`."""
        return values.choice("SIGNING_ALG", "RS256", tokens.SIGNING_ALGORITHMS)

    @property
    def key_size(self) -> int:
        """Bits of a generated RSA key."""
        return values.choice("KEY_SIZE", 2048, (2048, 3072, 4096))

    @property
    def allow_unencrypted(self) -> bool:
        """Honour the `unencrypted` parameter. Only ever together with DEBUG."""
        return values.boolean("ALLOW_UNENCRYPTED", default=False)

    # Keys at rest and in memory

    @property
    def key_encryption_keys(self) -> list[bytes]:
        """Keys that seal private keys at rest: the first seals, all open.

        By default derived from SECRET_KEY and SECRET_KEY_FALLBACKS with HKDF-SHA256 (RFC 5869). The entry
        "SECRET_KEY" in the list stands for those, for the move away from them.
        """
        value = values.get("KEY_ENCRYPTION_KEYS", [DERIVED])
        if not isinstance(value, (list, tuple)) or not value:
            raise values.invalid("KEY_ENCRYPTION_KEYS", values.KEK_FORMAT)
        keys: list[bytes] = []
        for item in value:
            if item == DERIVED:
                keys += map(values.derived_key, (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))
            else:
                keys.append(values.key_encryption_key(item))
        return keys

    @property
    def key_encryption_keys_are_derived(self) -> bool:
        """Whether the key that seals comes from SECRET_KEY."""
        value = values.get("KEY_ENCRYPTION_KEYS", [DERIVED])
        return isinstance(value, (list, tuple)) and value[:1] in ([DERIVED], (DERIVED,))

    @property
    def key_cache_seconds(self) -> int:
        """Seconds a process goes on with the keys it has read; five at most, for a revoked key stops within that."""
        return values.integer("KEY_CACHE_SECONDS", 3, 0, 5)

    # How keys follow one another

    @property
    def key_rotation_days(self) -> int:
        """Days a key stays current before `instaccess_keys rotate` replaces it."""
        days = values.integer("KEY_ROTATION_DAYS", 30, 1, 3650)
        if days * 86400 <= self.key_lead_seconds:
            raise values.invalid("KEY_ROTATION_DAYS", f"longer than the lead time of {self.key_lead_seconds} s")
        return days

    @property
    def key_lead_seconds(self) -> int:
        """Seconds a key is published before it is used: at least until every copy of the JWKS holds it."""
        least = self.jwks_max_age + self.key_cache_seconds
        return values.at_least("KEY_LEAD_SECONDS", least, "JWKS_MAX_AGE + KEY_CACHE_SECONDS")

    @property
    def key_retention_seconds(self) -> int:
        """Seconds a retired key stays valid: at least until the last token it signed is dead.

        An hour of lifetime counts whatever LIFETIME says: it may have been longer yesterday.
        """
        least = MAX_LIFETIME + CLOCK_SKEW + self.leeway + self.key_cache_seconds
        return values.at_least(
            "KEY_RETENTION_SECONDS", least, "one hour of life, a minute of skew, LEEWAY, KEY_CACHE_SECONDS"
        )

    @property
    def jwks_max_age(self) -> int:
        """Seconds others may keep a copy of our JWKS."""
        return values.integer("JWKS_MAX_AGE", 300, 0, 86_400)

    @property
    def leeway(self) -> int:
        """Seconds past its `exp` at which a token is still accepted."""
        return values.integer("LEEWAY", 0, 0, MAX_LEEWAY)

    # Gateways and services

    @property
    def decryption_keys(self) -> list[str] | None:
        """Private encryption keys of a gateway, newest first: PEM or JWK, each as text or as the path of a file; None
        takes those of this database."""
        return values.key_texts("DECRYPTION_KEYS")

    @property
    def verification_keys(self) -> list[str] | str | None:
        """Public signing keys: a list as above (a JWKS too), or the URL of a JWKS; None takes those of this
        database."""
        value = values.get("VERIFICATION_KEYS", None)
        if not isinstance(value, str):
            return values.key_texts("VERIFICATION_KEYS")
        if "://" not in value:
            raise values.invalid(
                "VERIFICATION_KEYS",
                "an https:// URL, or a list of keys, each PEM, JWK or the path of a file with one",
            )
        return values.url("VERIFICATION_KEYS", value, allow_http=self.allow_http_urls)

    @property
    def deny_list(self) -> str:
        """Where a gateway learns of revoked tokens: `database`, or the URL of an issuer's `/internal/services/…`."""
        value = values.get("DENY_LIST", "database")
        if not isinstance(value, str):
            raise values.invalid("DENY_LIST", "'database' or an https:// URL")
        return value if value == "database" else values.url("DENY_LIST", value, allow_http=self.allow_http_urls)

    @property
    def deny_list_seconds(self) -> int:
        """Seconds a gateway goes on with the deny list it has read; a revocation must arrive within five."""
        return values.integer("DENY_LIST_SECONDS", 2, 0, 4)

    @property
    def max_staleness(self) -> int:
        """Seconds to go on with old keys, and at a gateway with an old deny list, while new ones can't be read."""
        return values.integer("MAX_STALENESS", 60, 0, 3600)

    @property
    def service_secrets(self) -> list[str]:
        """Shared secrets for `/internal/services/revocations`: a gateway sends the first, an issuer takes any."""
        value = values.get("SERVICE_SECRETS", [])
        if not isinstance(value, (list, tuple)) or not all(
            isinstance(s, str) and values.SECRET.fullmatch(s) for s in value
        ):
            raise values.invalid(
                "SERVICE_SECRETS", "a list of texts of 32 to 255 characters from A-Z a-z 0-9 - . _ ~ + /"
            )
        return list(value)

    @property
    def user_hook(self) -> Callable[[Any], Any] | None:
        """Callable `(claims) -> user or None` with which a service finds the user of a token."""
        return values.function("USER_HOOK")

    @property
    def other_bearers(self) -> str:
        """What a gateway does with a bearer that is no InstAccess token: `refuse` it, or let it `pass` unchanged."""
        return values.choice("OTHER_BEARERS", "refuse", ("refuse", "pass"))

    @property
    def remembered_tokens(self) -> int:
        """How many opened tokens a gateway process keeps in memory, so that their next request needs no RSA."""
        return values.integer("REMEMBERED_TOKENS", 5000, 0, 1_000_000)

    @property
    def allow_http_urls(self) -> bool:
        """Read keys and the deny list over http too: whoever is on the way can then replace them."""
        return values.boolean("ALLOW_HTTP_URLS", default=False)

    # The audit

    @property
    def audit_retention_days(self) -> int | None:
        """Days after which `instaccess_tokens prune` deletes a row of the audit; None keeps them until it is told."""
        days = values.get("AUDIT_RETENTION_DAYS", None)
        return None if days is None else values.integer("AUDIT_RETENTION_DAYS", days, 1, 36_500)

    # What the endpoint takes and says

    @property
    def realm(self) -> str:
        """Realm in `WWW-Authenticate`."""
        realm = values.text("REALM", "canvas-lms")
        if not realm.isascii() or not realm.isprintable() or '"' in realm or "\\" in realm:
            raise values.invalid("REALM", "printable ASCII without quotes or backslashes")
        return realm

    @property
    def allow_token_in_parameters(self) -> bool:
        """Take the access token from the query or a form body, as Canvas does and RFC 6750 §2.3 advises against."""
        return values.boolean("ALLOW_TOKEN_IN_PARAMETERS", default=False)

    @property
    def trusted_proxies(self) -> int:
        """How many proxies of ours stand in front and each append to X-Forwarded-For; 0 ignores the header."""
        return values.integer("TRUSTED_PROXIES", 0, 0, 10)


conf = Conf()

SETTINGS = {name.upper(): name for name, member in vars(Conf).items() if isinstance(member, property)}
del SETTINGS["KEY_ENCRYPTION_KEYS_ARE_DERIVED"]
values.set_known_names(SETTINGS)
