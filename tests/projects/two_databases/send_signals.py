"""A script that issues and revokes tokens and changes keys in transactions on each of two databases.

The script prints how many signals receivers got before and after the end of each transaction.
"""

import time
from collections.abc import Callable
from typing import Any

import django

from tests.support import subproject

if __name__ == "__main__":
    django.setup()
    from django.core.management import call_command

    # `set_up` migrates only the database `default`, which gets no table.
    call_command("migrate", database="second", verbosity=0, interactive=False)
    subproject.set_up()
    from django.contrib.auth import get_user_model
    from django.db import transaction

    from instaccess import audit, keys, signals
    from instaccess.conf import conf
    from instaccess.issuer import Origin, issue
    from instaccess.models import Key
    from tests.support.receiving import received

    user = get_user_model().objects.create_user("ada")

    def issue_token() -> None:
        issue(user=user, origin=Origin(canvas_domain="canvas.example.edu"), now=time.time())

    def revoke_tokens() -> None:
        audit.revoke(audit.revocable_tokens(), keks=conf.key_encryption_keys, reason="laptop lost")

    def count(signal: Any, act: Callable[[], object], alias: str, *, commit: bool) -> tuple[int, int]:
        """Act in a transaction on a database. Returns the number of signals before and after its end."""
        with received(signal) as facts:
            with transaction.atomic(using=alias):
                act()
                before = len(facts)
                transaction.set_rollback(not commit, using=alias)
            return before, len(facts)

    issue_token()
    acts: dict[str, tuple[Any, Callable[[], object]]] = {
        # A token can't be issued in a transaction on the database with the audit log.
        "token_issued": (signals.token_issued, issue_token),
        "tokens_revoked": (signals.tokens_revoked, revoke_tokens),
        "key_changed": (signals.key_changed, lambda: keys.generate(Key.Use.SIGNING)),
        "key_changed by a deletion": (
            signals.key_changed,
            lambda: Key.objects.filter(status="future").first().delete(),
        ),
    }
    results: dict[str, dict[str, tuple[int, int]]] = {
        "second": {},
        "second, rolled back": {},
        "default, rolled back": {},
    }
    for name, (signal, act) in acts.items():
        if name != "token_issued":
            results["second, rolled back"][name] = count(signal, act, "second", commit=False)
            results["second"][name] = count(signal, act, "second", commit=True)
        issue_token()
        results["default, rolled back"][name] = count(signal, act, "default", commit=False)
    subproject.print_result(results)
