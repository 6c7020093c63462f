"""The command `manage.py instaccess_tokens`, which lists and revokes issued tokens and maintains the audit log."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db.models import Q, QuerySet
from django.utils import timezone

from ... import audit, keys, users
from ...conf import conf
from ...models import IssuedToken
from .. import audit_evidence, audit_export, oauth2_reports
from ..base import iso, operator

_SUBCOMMANDS = {
    "list": "List issued tokens, the latest first.",
    "show": "Show the audit row of one token.",
    "revoke": (
        "Revoke live tokens. Every gateway refuses the tokens within five seconds. Services that clients reach "
        "without a gateway accept each token until its expiry. With an OAuth2 token, a client can get a new "
        "InstAccess token: after a theft, use --user and --oauth2-tokens."
    ),
    "erase-name": (
        "Replace the name of a user with a placeholder in every audit row, for a person with a right to erasure. The "
        "user's uuid stays. HMACs and checkpoints stay valid. If the command was interrupted, run the command again."
    ),
    "export": "Export the audit log as CSV or JSON Lines, the latest tokens first, in constant memory.",
    **audit_evidence.SUBCOMMANDS,
}


class Command(audit_evidence.EvidenceSubcommands):
    help = (
        "List, show, export and revoke issued tokens; create checkpoints for the audit log; verify and prune the "
        "audit log; erase user names."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        sub = self.add_subcommands(parser, _SUBCOMMANDS)
        for name in ("list", "export", "revoke"):
            sub[name].add_argument("--user", help="Only tokens whose user or actor has this user name or uuid.")
            sub[name].add_argument(
                "--application", help="Only tokens issued to the OAuth2 application with this client id."
            )
            sub[name].add_argument("--account", help="Only tokens for the account with this uuid.")
        sub["erase-name"].add_argument(
            "--user",
            required=True,
            help="The uuid or the user name of an existing or deleted user, or the primary key of an existing user.",
        )
        for name in ("show", "revoke"):
            sub[name].add_argument("--jti", required=name == "show", help="The token id (jti).")
        for name in ("list", "export"):
            sub[name].add_argument("--live", action="store_true", help="Only live tokens.")
            audit_export.add_period_arguments(sub[name])
        audit_export.add_arguments(sub["export"])
        sub["list"].add_argument("--limit", type=int, default=50, help="Maximum number of tokens (default: 50).")
        sub["revoke"].add_argument("--reason", required=True, help="The reason, stored in the audit log.")
        sub["revoke"].add_argument(
            "--oauth2-tokens",
            action="store_true",
            help="Together with --user: also revoke the OAuth2 access and refresh tokens, codes and ID tokens of the "
            "user, so that no client gets new InstAccess tokens with these tokens. The user has to "
            "authorize each application again.",
        )
        audit_evidence.add_arguments(sub)
        for name in ("revoke", "prune", "erase-name"):
            sub[name].add_argument(
                "--dry-run", action="store_true", help="Change nothing; print the number of matching rows."
            )
        for name in _SUBCOMMANDS.keys() - {"export"}:
            sub[name].add_argument("--json", action="store_true", help="Print one JSON document to standard output.")

    def _list(self, options: dict[str, Any]) -> None:
        tokens = _matching_tokens(options).order_by("-issued_at", "-pk")[: max(options["limit"], 0)]
        facts = [_facts(token) for token in tokens.select_related(*users.user_relations("user", "real_user"))]
        if options["json"]:
            self.print_json(facts)
            return
        for fact in facts:
            actor = fact["actor"] or fact["actor_uuid"]
            people = f"user {fact['user'] or fact['user_uuid']}" + (f"  actor {actor}" if actor else "")
            self.stdout.write(
                f"{fact['issued_at']}  {fact['status']:<7}  {fact['jti']}  {people}"
                f"  client {fact['client_id'] or '-'}  from {fact['ip_address'] or '-'}"
            )
        if not facts:
            self.stdout.write("No matching tokens.")

    def _export(self, options: dict[str, Any]) -> None:
        audit_export.write(_matching_tokens(options), options, self.stdout, self.progress)

    def _show(self, options: dict[str, Any]) -> None:
        related = users.user_relations("user", "real_user")
        token = audit.issued_tokens().filter(jti=_parse_jti(options["jti"])).select_related(*related).first()
        if token is None:
            raise CommandError(
                f"There is no token {options['jti']} in the audit log. To print the tokens, run `python manage.py "
                "instaccess_tokens list`."
            )
        facts = _facts(token)
        if options["json"]:
            self.print_json(facts)
            return
        for name, value in facts.items():
            self.stdout.write(f"{name:<18} {'-' if value in (None, '') else value}")

    def _revoke(self, options: dict[str, Any]) -> None:
        conditions = _conditions(options)
        if not conditions:
            raise CommandError("No filter given: add --jti, --user, --application or --account.")
        if not options["reason"].strip():
            raise CommandError("--reason is empty: give the reason, which is stored in the audit log.")
        tokens, owners = audit.revocable_tokens().filter(*conditions), oauth2_reports.find_owners(options)
        usable = audit.summarize_oauth2_tokens(owners) if owners else []
        is_included = bool(options["oauth2_tokens"])
        facts: dict[str, Any] = {"oauth2_tokens": oauth2_reports.facts(usable)} if owners else {}
        advice = oauth2_reports.advice(owners, usable, revoked=is_included)
        if options["dry_run"]:
            total, count = sum(each.total for each in usable), tokens.count()
            result = [f"{count} live tokens would be revoked."]
            if is_included:
                result += [f"{total} OAuth2 tokens would be revoked too.", *oauth2_reports.lines(usable)]
                facts["would_revoke_oauth2_tokens"] = total
            self.print_result(options, {"would_revoke": count, **facts}, "\n".join(result + advice))
            return
        is_unknown = not options["jti"] and not audit.issued_tokens().filter(*conditions).exists()
        if is_unknown and not (is_included and usable):
            raise CommandError(
                "No token was revoked, because no audit row matches. Check the spelling of the filters."
            )
        act = {"keks": keys.keks_for_revocation(), "reason": options["reason"], "by": operator()}
        scopes = _scopes(options)
        if is_included:
            revoked = audit.revoke_with_oauth2_tokens(tokens, owners, scopes=scopes, **act)
            count, facts["revoked_oauth2_tokens"] = revoked.tokens, revoked.oauth2_tokens
        else:
            count = audit.revoke(tokens, scopes=scopes, **act)
        if not count and options["jti"]:
            raise CommandError(
                f"Token {options['jti']} was not revoked: {_why_not_live(_parse_jti(options['jti']))}."
            )
        result = [f"Revoked {count} live tokens. Gateways refuse the tokens within 5 seconds."]
        if is_included:
            result += [f"Revoked {facts['revoked_oauth2_tokens']} OAuth2 tokens too.", *oauth2_reports.lines(usable)]
        self.print_result(options, {"revoked": count, **facts}, "\n".join(result + advice))

    def _erase_name(self, options: dict[str, Any]) -> None:
        uuids = sorted(audit.find_uuids(options["user"]))
        if not uuids:
            raise CommandError(f"No audit row contains the user {options['user']!r}. Check the spelling.")
        if len(uuids) > 1:
            raise CommandError(
                f"{options['user']!r} matches several users. Give the uuid of one user: {', '.join(uuids)}."
            )
        [user_uuid] = uuids
        if options["dry_run"]:
            count = audit.count_names(user_uuid)
            text = f"The name of user {user_uuid} would be erased in {count} rows."
            self.print_result(options, {"user_uuid": user_uuid, "would_erase": count}, text)
            return
        count = audit.erase_name(user_uuid, keks=conf.key_encryption_keys, by=operator())
        text = (
            f"Erased the name of user {user_uuid} in {count} rows. Earlier exports, backups and logs still contain "
            "the name."
        )
        if conf.audit_user_names and users.active_user(user_uuid) is not None:
            text += " The user still exists, so rows of new tokens will contain the name again."
        self.print_result(options, {"user_uuid": user_uuid, "erased": count}, text)


def _scopes(options: dict[str, Any]) -> list[audit.Scope]:
    """Return the scopes for `--user` or `--account`.

    Returns an empty list if any other filter is given, or if both filters are given.
    """
    match [name for name in ("jti", "user", "application", "account") if options[name] is not None]:
        case ["user"]:
            return audit.scopes_of_user(options["user"])
        case ["account"]:
            return audit.scopes_of_account(options["account"])
    return []


def _matching_tokens(options: dict[str, Any]) -> QuerySet[IssuedToken]:
    """Return the audit rows that match the filters of the subcommands `list` and `export`."""
    tokens = audit.live_tokens() if options["live"] else audit.issued_tokens()
    return tokens.filter(*_conditions(options), *audit_export.period(options))


def _conditions(options: dict[str, Any]) -> list[Q]:
    filters: dict[str, Callable[[str], Q]] = {
        "jti": lambda text: Q(jti=_parse_jti(text)),
        "user": audit.filter_by_user,
        "application": audit.filter_by_application,
        "account": audit.filter_by_account,
    }
    conditions = []
    for name, condition in filters.items():
        text = options.get(name)
        if text == "":
            # Refuse an empty value, for example from an unset shell variable. If the filter were ignored instead,
            # more tokens would match.
            raise CommandError(f"--{name} is empty: give a value.")
        if text is not None:
            conditions.append(condition(text))
    return conditions


def _parse_jti(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise CommandError(f"{text!r} isn't a token id: give the uuid from the audit log or the logs.") from None


def _why_not_live(jti: uuid.UUID) -> str:
    token = audit.issued_tokens().filter(jti=jti).first()
    if token is None:
        return "it isn't in the audit log"
    return f"it is already {_status(token)}"


def _status(token: IssuedToken) -> str:
    return audit.token_status(token.revoked_at, token.expires_at, now=timezone.now())


def _facts(token: IssuedToken) -> dict[str, Any]:
    return {
        "jti": str(token.jti),
        "status": _status(token),
        "user": users.display_name(token.user, token.user_uuid, token.user_name),
        "user_name": token.user_name,
        "user_uuid": token.user_uuid,
        "actor": users.display_name(token.real_user, token.real_user_uuid, token.real_user_name),
        "actor_name": token.real_user_name,
        "actor_uuid": token.real_user_uuid,
        "client_id": token.client_id,
        "access_token_pk": token.access_token_pk,
        "account_uuid": token.account_uuid,
        "canvas_domain": token.canvas_domain,
        "ip_address": token.ip_address,
        "user_agent": token.user_agent,
        "issued_at": iso(token.issued_at),
        "expires_at": iso(token.expires_at),
        "signing_kid": token.signing_kid,
        "encryption_kid": token.encryption_kid,
        "revoked_at": iso(token.revoked_at),
        "revoked_by": token.revoked_by or None,
        "revocation_reason": token.revocation_reason,
    }
