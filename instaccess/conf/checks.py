"""System check of the INSTACCESS settings, for every role. Each name must be known, and each value must be valid."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, register

from ..exceptions import ConfigError
from .settings import SETTINGS, Conf
from .values import did_you_mean, read_project_settings

BAD_SETTING_IDS = {
    "ISSUER": "instaccess.E010",
    "LIFETIME": "instaccess.E011",
    "REGION": "instaccess.E012",
    "SHARD_ID": "instaccess.E013",
    "ACCOUNT_UUID": "instaccess.E014",
    "ACCOUNT_HOOK": "instaccess.E015",
    "USER_UUID_FIELD": "instaccess.E016",
    "CLAIMS_HOOK": "instaccess.E017",
    "ENCRYPTION_ALG": "instaccess.E018",
    "CONTENT_ENCRYPTION": "instaccess.E019",
    "SIGNING_ALG": "instaccess.E020",
    "KEY_SIZE": "instaccess.E021",
    "ALLOW_UNENCRYPTED": "instaccess.E022",
    "KEY_ENCRYPTION_KEYS": "instaccess.E023",
    "KEY_CACHE_SECONDS": "instaccess.E024",
    "REALM": "instaccess.E025",
    "ALLOW_TOKEN_IN_PARAMETERS": "instaccess.E026",
    "TRUSTED_PROXIES": "instaccess.E027",
    "KEY_ROTATION_DAYS": "instaccess.E028",
    "KEY_LEAD_SECONDS": "instaccess.E029",
    "KEY_RETENTION_SECONDS": "instaccess.E030",
    "JWKS_MAX_AGE": "instaccess.E031",
    "LEEWAY": "instaccess.E032",
    "DECRYPTION_KEYS": "instaccess.E033",
    "VERIFICATION_KEYS": "instaccess.E034",
    "DENY_LIST": "instaccess.E035",
    "DENY_LIST_SECONDS": "instaccess.E036",
    "MAX_STALENESS": "instaccess.E037",
    "SERVICE_SECRETS": "instaccess.E038",
    "OTHER_BEARERS": "instaccess.E039",
    "REMEMBERED_TOKENS": "instaccess.E040",
    "ALLOW_HTTP_URLS": "instaccess.E041",
    "USER_HOOK": "instaccess.E042",
    "MASQUERADE_HOOK": "instaccess.E043",
    "THROTTLE_LIMIT": "instaccess.E044",
    "THROTTLE_COST": "instaccess.E045",
    "THROTTLE_LEAK": "instaccess.E046",
    "THROTTLE_STATUS": "instaccess.E047",
    "THROTTLE_CACHE": "instaccess.E048",
    "AUDIT_RETENTION_DAYS": "instaccess.E049",
    "ACCEPTED_ISSUERS": "instaccess.E054",
    "AUDIT_USER_NAMES": "instaccess.E056",
    "KEEP_DECISION_SECONDS": "instaccess.E057",
}
"""A mapping from the name of a setting to the id of the check message that reports an invalid value."""


@register()
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Report unknown names and invalid values in INSTACCESS."""
    try:
        # Do not store the settings in a variable, because error reporters would print the secrets in the variable.
        # Reading a hook setting below imports a module of the project, which can raise any error.
        unknown = [name for name in read_project_settings() if name not in SETTINGS]
    except ConfigError as error:
        return [
            Error(
                error.detail + ".",
                hint='Set INSTACCESS to a dictionary, such as {"LIFETIME": 3600}.',
                id="instaccess.E001",
            )
        ]
    messages: list[CheckMessage] = [
        Error(
            f"INSTACCESS[{name!r}] is not a setting of instaccess.",
            hint=f"{did_you_mean(name, SETTINGS)}The settings are {', '.join(SETTINGS)}.",
            id="instaccess.E002",
        )
        for name in unknown
    ]
    # Use a `Conf` object without the unknown names, because an unknown name makes every read of `conf.conf` fail.
    valid_names = Conf({name: value for name, value in read_project_settings().items() if name in SETTINGS})
    for name, attribute in SETTINGS.items():
        try:
            getattr(valid_names, attribute)
        except ConfigError as error:
            # The bounds of a setting can depend on another setting. If the other setting is invalid, report only the
            # error of the other setting, so that one mistake causes one message.
            if error.setting == name:
                messages.append(Error(error.detail + ".", id=BAD_SETTING_IDS[name]))
    return messages
