"""The texts that `instaccess_keys after-restore` prints: sentences for an operator, and facts for `--json`."""

from __future__ import annotations

from typing import Any

from .. import keys
from ..conf import conf
from ..models import Key
from ..times import format_utc
from . import key_reports
from .base import iso

HELP = (
    "Run this command after the database was restored from a backup, or after a failover to a replica that lacks "
    "the last transactions. Keys and tokens that were revoked after the backup are valid again in the restored "
    "database. The command therefore replaces all keys, and within five seconds, every gateway refuses all tokens "
    "issued so far. If the command was interrupted, run the command again."
)
KEEP_HELP = (
    "Don't revoke this key. The command refuses to keep a key if its private key is stored on this server. Before "
    "you add this option, ask the owner of the private key whether the key was revoked after the backup. You can "
    "repeat this option."
)


def plan_lines(plan: keys.Plan) -> list[str]:
    """Describe what the command will do, before the operator confirms."""
    lines = [
        "This command is for a database that was restored from a backup.",
        "All tokens issued so far will be refused. Clients have to get new tokens.",
        *(f"The {_name(key)} will be revoked." for key in plan.revoked),
        *(f"The {_name(key)} will be kept." for key in plan.kept),
        *(f"A new {status.label} {use.label} key will be generated." for use, status in plan.generated),
    ]
    if plan.missing:
        lines += [
            "The encryption key belongs to a gateway, which stores the private key, so no new encryption key can be "
            "generated here. The issuer will answer 503 until you import and activate a new public key of the "
            "gateway.",
            *(
                f"Ask the owner of the gateway whether key {key.kid} was revoked or replaced after the backup. If "
                f"the key was not revoked or replaced, type no, and run the command again with --keep {key.kid}"
                for key in plan.revoked
                if _is_current_of_gateway(key)
            ),
        ]
    return lines


def result_lines(result: keys.Replacement) -> list[str]:
    """Describe what the command has done, and what the operator must do now."""
    until = format_utc(result.refused_until)
    return [
        f"Within 5 seconds, every gateway refuses all tokens issued until {until}.",
        f"New tokens are also refused if clients get them before {until}. Test the gateway after this time.",
        f"Live tokens marked as revoked in the audit log: {result.tokens}.",
        *(
            f"Revoked the {key.get_use_display()} key {key_reports.printable(key.kid)}."
            for key in result.plan.revoked
        ),
        *(f"Kept the {_name(key)}." for key in result.plan.kept),
        *(f"Generated the {_name(key)}." for key in result.generated),
        "What to do now:",
        *(f"{number}. {step}" for number, step in enumerate(_steps(result), 1)),
    ]


def facts(result: keys.Replacement) -> dict[str, Any]:
    """Return the JSON members that describe the result of the command."""
    return {
        "refused_until": iso(result.refused_until),
        "tokens": result.tokens,
        "revoked": [key_reports.facts(key) for key in result.plan.revoked],
        "kept": [key_reports.facts(key) for key in result.plan.kept],
        "generated": [key_reports.facts(key) for key in result.generated],
        "encryption_key_missing": result.plan.missing,
        "next": _steps(result),
    }


def _steps(result: keys.Replacement) -> list[str]:
    signing = [key.kid for key in result.generated if key.use == Key.Use.SIGNING]
    encryption = [key.kid for key in result.generated if key.use == Key.Use.ENCRYPTION]
    exports = " and ".join(f"`python manage.py instaccess_keys export --kid {kid}`" for kid in signing)
    steps = []
    if result.plan.missing:
        steps.append(
            "Generate a new key pair at the gateway. To import the public key here, run `python manage.py "
            "instaccess_keys import --use enc --file PATH`. To make the imported key current, run `python manage.py "
            "instaccess_keys activate --kid KEY_ID`. The issuer answers 503 until this key is current."
        )
    steps += [
        "In other deployments, restart the services and gateways that read the JWKS of this issuer. Services "
        f"without a gateway accept the old tokens until the restart, or for up to {conf.jwks_max_age} seconds "
        "(JWKS_MAX_AGE).",
        "If services or gateways list keys in VERIFICATION_KEYS, replace these keys with the new signing keys, and "
        f"restart these services and gateways. To print the new signing keys, run {exports}.",
    ]
    steps += [
        "If a gateway has a copy of the private encryption key in DECRYPTION_KEYS, replace this copy with the new "
        "private key, and restart the gateway. To write the new private key to a file, run `python manage.py "
        f"instaccess_keys export --private --kid {kid} --file PATH`."
        for kid in encryption
    ]
    return [
        *steps,
        "OAuth2 access tokens, users and permissions were also restored from the backup. Revoke the access tokens, "
        "deactivate users and remove permissions as docs/restore.md describes.",
        "To check the restored database, run `python manage.py check --database default` and `python manage.py "
        "instaccess_tokens verify`.",
    ]


def _name(key: Key) -> str:
    status, kid = (key_reports.printable(value) for value in (key.get_status_display(), key.kid))
    return f"{status} {key.get_use_display()} key {kid}"


def _is_current_of_gateway(key: Key) -> bool:
    return (key.use, key.status, key.has_private) == (Key.Use.ENCRYPTION, Key.Status.CURRENT, False)
