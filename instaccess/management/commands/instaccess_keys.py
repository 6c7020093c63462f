"""The command `manage.py instaccess_keys`, which lists and changes the keys of a deployment."""

from __future__ import annotations

import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ... import audit, keys
from ...exceptions import InstAccessError
from ...models import Key
from ...opaque import Opaque, concealed
from .. import key_reports, restoring
from ..base import CONTINUE, SubcommandCommand, operator, write_new_file

_SUBCOMMANDS = {
    "list": "List every key with its status and its next step.",
    "generate": "Generate an additional future key. `rotate` generates future keys automatically.",
    "import": (
        "Import a key from a file (PEM or JWK) as a future key. A private key is refused without --with-private, "
        "because the issuer needs only the public key of the gateway's encryption key pair."
    ),
    "export": (
        "Print a public key, or the private key with --private. With --file, write the key to a new file instead."
    ),
    "rotate": (
        "Rotate keys whose rotation is due, generate future keys, and erase private keys that are no longer needed. "
        "Report the changes and the time of the next rotation. Run this command from cron, daily or more often. The "
        "exit code is 0 even if nothing was due."
    ),
    "activate": "Make a future key the current key now. The previous key becomes past, and its tokens stay valid.",
    "revoke": (
        "Revoke a compromised key. The key is removed from the JWKS within five seconds. Within the same time, "
        "every gateway and each service that uses this database refuse the tokens of the key. Services in "
        "other deployments that read the JWKS accept tokens of a signing key for up to JWKS_MAX_AGE (300 seconds by "
        "default): restart these services, or put these services behind a gateway. The live tokens of the key are "
        "marked as revoked, and its private key is erased. If the key was current, the next future key becomes "
        "current. A revocation can't be undone. You can also revoke a key whose row was modified or inserted with "
        "SQL."
    ),
    "reseal": (
        "Encrypt every stored private key again, with the first key in INSTACCESS['KEY_ENCRYPTION_KEYS'], and "
        "recompute the HMACs of keys and of the audit log with this key. A modified row gets no new HMAC. You can "
        "run this command while tokens are issued. If the command was interrupted, run the command again."
    ),
    "after-restore": restoring.HELP,
}


class _Parser(CommandParser):
    """A parser that accepts any word after `--kid` and `--keep`, because one key id in 64 begins with a dash.

    argparse would read such a key id as an option, and the key could not be revoked.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words, joined = iter(args or ()), []
        for word in words:
            value = next(words, None) if word in {"--kid", "--keep"} else None
            joined.append(word if value is None else f"{word}={value}")
        return super().parse_known_args(joined, namespace)


class Command(SubcommandCommand):
    help = (
        "List, generate, import, export, rotate, activate, revoke and reseal keys, or replace all keys after a "
        "restore."
    )
    recorded = frozenset({"rotate"})
    long = MappingProxyType({"reseal": CONTINUE})

    def add_arguments(self, parser: CommandParser) -> None:
        sub = self.add_subcommands(parser, _SUBCOMMANDS, parser_class=_Parser)
        for name in ("generate", "import", "rotate"):
            sub[name].add_argument(
                "--use",
                choices=Key.Use.values,
                required=name != "rotate",
                help="The key use: sig (signing) or enc (encryption)"
                + ("; default: both." if name == "rotate" else "."),
            )
        for name in ("export", "activate", "revoke"):
            sub[name].add_argument("--kid", required=True, help="The key id, or at least its first 6 characters.")
        sub["import"].add_argument("--file", required=True, help="A PEM or JWK file; use - for standard input.")
        sub["import"].add_argument(
            "--with-private", action="store_true", help="Accept a private key and store it encrypted."
        )
        sub["export"].add_argument(
            "--format", choices=["pem", "jwk"], default="pem", help="Format of the key (default: pem)."
        )
        sub["export"].add_argument("--private", action="store_true", help="Export the private key, unencrypted.")
        sub["export"].add_argument(
            "--file",
            metavar="PATH",
            help="Write to this file, which must not exist yet. The file of a private key has mode 0600.",
        )
        sub["export"].add_argument(
            "--yes", action="store_true", help="Print a private key without asking for confirmation, even to a pipe."
        )
        for name, text in {
            "rotate": (
                "Rotate the keys before rotation is due. Services may refuse new tokens until the services fetch the "
                "JWKS again."
            ),
            "activate": (
                "Activate the key before its lead time has passed. Services may refuse new tokens until the "
                "services fetch the JWKS again."
            ),
        }.items():
            sub[name].add_argument("--force", action="store_true", help=text)
        sub["revoke"].add_argument(
            "--reason", default="", help="The reason, stored in the audit log with the revoked tokens."
        )
        sub["after-restore"].add_argument(
            "--keep", action="append", default=[], metavar="KID", help=restoring.KEEP_HELP
        )
        sub["after-restore"].add_argument(
            "--reason", default="", help="The reason, stored in the audit log with the revoked tokens."
        )
        sub["after-restore"].add_argument("--yes", action="store_true", help="Don't ask for confirmation.")
        for name in _SUBCOMMANDS.keys() - {"export"}:
            sub[name].add_argument("--json", action="store_true", help="Print one JSON document to standard output.")

    def _list(self, options: dict[str, Any]) -> None:
        facts = key_reports.all_facts()
        if options["json"]:
            self.print_json(facts)
            return
        if not facts:
            self.stdout.write("There are no keys: run `python manage.py instaccess_init`.")
        for fact in facts:
            parts = "with private key" if fact["private"] else "public key only"
            use, status, kid = (key_reports.printable(fact[name]) for name in ("use", "status", "kid"))
            self.stdout.write(f"{use}  {status:<8} {kid}  {parts}; {fact['next']}")

    def _generate(self, options: dict[str, Any]) -> None:
        key = keys.generate(Key.Use(options["use"]))
        self.print_result(
            options,
            key_reports.facts(key),
            f"Generated the future {key.get_use_display()} key {key.kid}; {key_reports.next_step(key)}.",
        )

    def _import(self, options: dict[str, Any]) -> None:
        try:
            data = Opaque(sys.stdin.buffer.read() if options["file"] == "-" else Path(options["file"]).read_bytes())
        except OSError as error:
            raise CommandError(
                f"Can't read {options['file']}: {error.strerror}. Check the path after --file."
            ) from error
        key = keys.import_key(data, use=Key.Use(options["use"]), with_private=options["with_private"])
        self.print_result(options, key_reports.facts(key), key_reports.imported(key))

    def _export(self, options: dict[str, Any]) -> None:
        key, path, private = keys.find_key(options["kid"]), options["file"], options["private"]
        if private and path is None and not options["yes"]:
            self._confirm_printing(key)
        if private:
            text = keys.export_private(key, file_format=options["format"])
        else:
            text = Opaque(keys.export(key, file_format=options["format"]))
        if path is None:
            self._print(text)
            return
        write_new_file(path, text, mode=0o600 if private else 0o644)
        if private:
            self.stdout.write(f"The private key {key.kid} was written to {path}, unencrypted. {_name_risk(key)}")
        else:
            self.stdout.write(f"The public key {key.kid} was written to {path}.")

    @concealed
    def _print(self, text: Opaque[str]) -> None:
        self.stdout.write(text.reveal(), ending="")

    def _confirm_printing(self, key: Key) -> None:
        if not self.stdout.isatty():
            # For `> key.pem`, the shell creates the file, often with a mode that lets other users read the private
            # key.
            raise CommandError(
                "The key was not exported, because standard output isn't a terminal. Write the key to a new file "
                "with --file PATH. To print the key anyway, add --yes."
            )
        self.stderr.write(
            f"{_name_risk(key)} The key is printed unencrypted.\nTo continue, type the key id ({key.kid}): ",
            ending="",
        )
        self.stderr.flush()
        if sys.stdin is None or sys.stdin.readline().strip() != key.kid:
            raise CommandError(
                "The key was not exported, because you did not type the key id. Run the command "
                "again, and type the key id."
            )

    def _rotate(self, options: dict[str, Any]) -> None:
        uses = [Key.Use(options["use"])] if options["use"] else list(Key.Use)
        outcomes, failures = [], []
        for use in uses:
            try:
                outcomes.append(keys.rotate(use, force=options["force"]))
            except InstAccessError as error:
                # Continue, because an error with the signing keys must not prevent the rotation of the encryption
                # keys.
                failures.append(error.detail)
        if options["json"]:
            self.print_json([key_reports.outcome_facts(outcome) for outcome in outcomes])
        else:
            for outcome in outcomes:
                for line in key_reports.rotation_messages(outcome):
                    self.stdout.write(f"{outcome.use.label}: {line}")
        if failures:
            raise CommandError("\n".join(failures))

    def _activate(self, options: dict[str, Any]) -> None:
        key = keys.activate(options["kid"], force=options["force"])
        self.print_result(options, key_reports.facts(key), "\n".join(key_reports.activated(key)))

    def _revoke(self, options: dict[str, Any]) -> None:
        revocation = keys.revoke(options["kid"], reason=options["reason"], by=operator())
        facts = {
            "key": key_reports.facts(revocation.key),
            "successor": key_reports.facts(revocation.successor) if revocation.successor else None,
            "made": key_reports.facts(revocation.generated) if revocation.generated else None,
            "tokens": revocation.tokens,
            "failure": revocation.failure,
        }
        if revocation.successor:
            after = f"Key {revocation.successor.kid} is now current."
        elif keys.current_key(keys.stored_keys(), Key.Use(revocation.key.use)):
            after = "The current key did not change."
        else:
            use = revocation.key.get_use_display()
            after = f"There is no current {use} key now: import or generate a key, then activate the key."
        text = f"Revoked key {revocation.key.kid}. Live tokens revoked with the key: {revocation.tokens}. {after}"
        self.print_result(options, facts, "\n".join([text, *key_reports.after_revocation(revocation.key)]))
        if revocation.failure:
            raise CommandError(f"The key is revoked, but no new key could be generated: {revocation.failure}.")

    def _reseal(self, options: dict[str, Any]) -> None:
        count = keys.reseal()
        renewed = audit.reauthenticate(keys.evidence_keys(), progress=self.progress)
        text = (
            f"Private keys encrypted again: {count}."
            if count
            else "Every private key is already encrypted with the first key-encryption key."
        )
        if renewed:
            text += f" HMACs of the audit log recomputed: {renewed}."
        self.print_result(options, {"resealed": count, "reauthenticated": renewed}, text)

    def _after_restore(self, options: dict[str, Any]) -> None:
        plan = keys.plan_replacement(options["keep"])
        if not options["yes"]:
            self._confirm(restoring.plan_lines(plan))
        reason = {"reason": options["reason"]} if options["reason"].strip() else {}
        result = keys.replace_all(keep=options["keep"], by=operator(), **reason)
        audit.reset_progress(keys.evidence_keys())
        self.print_result(options, restoring.facts(result), "\n".join(restoring.result_lines(result)))

    def _confirm(self, lines: list[str]) -> None:
        """Ask the operator for confirmation, on standard error, because standard output may be a JSON document."""
        self.stderr.write("\n".join([*lines, "To continue, type yes: "]), ending="")
        self.stderr.flush()
        if sys.stdin is None or sys.stdin.readline().strip() != "yes":
            raise CommandError("Nothing was changed, because you did not type yes.")


def _name_risk(key: Key) -> str:
    attack = "decrypt" if key.use == Key.Use.ENCRYPTION else "forge"
    return f"An attacker who has this private key can {attack} every token."
