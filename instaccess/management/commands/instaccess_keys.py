"""`manage.py instaccess_keys`: everything an operator does with keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ... import audit, keys
from ...exceptions import InstAccessError
from ...models import Key
from .. import key_reports
from ..base import SubcommandCommand, operator

_SUBCOMMANDS = {
    "list": "Show every key: what it is for, where it stands in its life, and what comes next.",
    "generate": "Make a new future key, both halves. `rotate` does that by itself; this is for one more.",
    "import": (
        "Take in a key from a file (PEM or JWK) as a future key. A private key is refused unless --with-private "
        "says that it must live here: the issuer needs only the public half of the gateway's encryption key."
    ),
    "export": "Write a key out: the public half, or with --private both.",
    "rotate": (
        "Do what is due, and say what was done and when the next rotation is due. Run it from cron, daily or "
        "oftener: exit code 0 also when nothing was due."
    ),
    "activate": "Make a future key the current one now; the one before becomes past and stays valid for its tokens.",
    "revoke": (
        "For a compromised key: out of the JWKS, refused everywhere within five seconds, its live tokens marked "
        "revoked, its private half erased. The future key takes over. This can't be undone."
    ),
    "reseal": (
        "Seal every private key under the first of INSTACCESS['KEY_ENCRYPTION_KEYS']. Safe while tokens are "
        "issued, and safe to run again after an interruption."
    ),
}


class _Parser(CommandParser):
    """Takes `--kid` with the word behind it, whatever that begins with: one key id in 64 begins with a dash, and a
    key that has to be revoked now may be such a one."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words, joined = iter(args or ()), []
        for word in words:
            value = next(words, None) if word == "--kid" else None
            joined.append(word if value is None else f"{word}={value}")
        return super().parse_known_args(joined, namespace)


class Command(SubcommandCommand):
    help = "List, make, import, export, rotate, activate, revoke and reseal keys."

    def add_arguments(self, parser: CommandParser) -> None:
        sub = self.add_subcommands(parser, _SUBCOMMANDS, parser_class=_Parser)
        for name in ("generate", "import", "rotate"):
            sub[name].add_argument(
                "--use",
                choices=Key.Use.values,
                required=name != "rotate",
                help="What the key is for: sig (signing) or enc (encryption)"
                + ("; both when left out." if name == "rotate" else "."),
            )
        for name in ("export", "activate", "revoke"):
            sub[name].add_argument("--kid", required=True, help="The key's id, or its first 6 characters or more.")
        sub["import"].add_argument("--file", required=True, help="A PEM or JWK file; - reads standard input.")
        sub["import"].add_argument(
            "--with-private", action="store_true", help="Take the private half in too, and seal it."
        )
        sub["export"].add_argument("--format", choices=["pem", "jwk"], default="pem", help="Default: pem.")
        sub["export"].add_argument("--private", action="store_true", help="Both halves, unencrypted.")
        sub["export"].add_argument("--yes", action="store_true", help="Don't ask before a private half is written.")
        for name, text in {
            "rotate": "Now, although it is not due; services may refuse tokens until they fetch the JWKS again.",
            "activate": "Before the key's lead time is over.",
        }.items():
            sub[name].add_argument("--force", action="store_true", help=text)
        sub["revoke"].add_argument("--reason", default="", help="Kept in the audit of the tokens that fall with it.")
        for name in _SUBCOMMANDS.keys() - {"export"}:
            sub[name].add_argument("--json", action="store_true", help="One JSON document on standard output.")

    def _list(self, options: dict[str, Any]) -> None:
        held = list(keys.stored_keys())
        facts = [key_reports.facts(key, held) for key in held]
        if options["json"]:
            self.tell_json(facts)
            return
        if not facts:
            self.stdout.write("There are no keys: run `python manage.py instaccess_init`.")
        for fact in facts:
            private = "both halves" if fact["private"] else "public half only"
            self.stdout.write(f"{fact['use']}  {fact['status']:<8} {fact['kid']}  {private}; {fact['next']}")

    def _generate(self, options: dict[str, Any]) -> None:
        key = keys.generate(Key.Use(options["use"]))
        self.done(
            options,
            key_reports.facts(key),
            f"Made the future {key.get_use_display()} key {key.kid}; {key_reports.next_step(key)}.",
        )

    def _import(self, options: dict[str, Any]) -> None:
        try:
            data = sys.stdin.buffer.read() if options["file"] == "-" else Path(options["file"]).read_bytes()
        except OSError as error:
            raise CommandError(f"Can't read {options['file']}: {error.strerror}") from error
        key = keys.import_key(data, use=Key.Use(options["use"]), with_private=options["with_private"])
        self.done(options, key_reports.facts(key), key_reports.imported(key))

    def _export(self, options: dict[str, Any]) -> None:
        key = keys.find_key(options["kid"])
        if options["private"] and not options["yes"]:
            self._confirm_private(key)
        self.stdout.write(keys.export(key, file_format=options["format"], private=options["private"]), ending="")

    def _confirm_private(self, key: Key) -> None:
        power = "open" if key.use == Key.Use.ENCRYPTION else "forge"
        self.stderr.write(
            f"Whoever has the private half of this key can {power} every token. It is written out unencrypted.\n"
            f"Type the key's id to go on ({key.kid}): ",
            ending="",
        )
        self.stderr.flush()
        if sys.stdin is None or sys.stdin.readline().strip() != key.kid:
            raise CommandError("Not exported: the key's id was not typed. In a script, say --yes.")

    def _rotate(self, options: dict[str, Any]) -> None:
        uses = [Key.Use(options["use"])] if options["use"] else list(Key.Use)
        outcomes, failures = [], []
        for use in uses:
            try:
                outcomes.append(keys.rotate(use, force=options["force"]))
            except InstAccessError as error:  # trouble with one use is no reason to leave the other one undone
                failures.append(error.detail)
        if options["json"]:
            self.tell_json([key_reports.outcome_facts(outcome) for outcome in outcomes])
        else:
            for outcome in outcomes:
                for line in key_reports.rotation_messages(outcome):
                    self.stdout.write(f"{outcome.use.label}: {line}")
        if failures:
            raise CommandError("\n".join(failures))

    def _activate(self, options: dict[str, Any]) -> None:
        key = keys.activate(options["kid"], force=options["force"])
        self.done(options, key_reports.facts(key), "\n".join(key_reports.activated(key)))

    def _revoke(self, options: dict[str, Any]) -> None:
        done = keys.revoke(options["kid"], reason=options["reason"], by=operator())
        facts = {
            "key": key_reports.facts(done.key),
            "successor": key_reports.facts(done.successor) if done.successor else None,
            "made": key_reports.facts(done.made) if done.made else None,
            "tokens": done.tokens,
            "failure": done.failure,
        }
        if done.successor:
            after = f"Key {done.successor.kid} took over."
        elif keys.current_key(keys.stored_keys(), Key.Use(done.key.use)):
            after = "The current key is another one and stays."
        else:
            after = (
                f"There is no current {done.key.get_use_display()} key now: import or generate one and activate it."
            )
        self.done(
            options,
            facts,
            f"Key {done.key.kid} is revoked, and with it every live token under it ({done.tokens}). {after}",
        )
        if done.failure:
            raise CommandError(f"The key is revoked, but no new one could be made: {done.failure}.")

    def _reseal(self, options: dict[str, Any]) -> None:
        count = keys.reseal()
        renewed = audit.reauthenticate(keys.evidence_keys())
        text = (
            f"{count} private keys sealed anew."
            if count
            else "Every private key was sealed under the first key-encryption key already."
        )
        if renewed:
            text += f" {renewed} HMACs of the audit made anew."
        self.done(options, {"resealed": count, "reauthenticated": renewed}, text)
