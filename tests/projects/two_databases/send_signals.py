"""A script that issues and revokes tokens and changes keys in transactions on each of two databases.

The script prints how many signals receivers got, or how many lines the log got, before and after the end of each
transaction.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import django

from tests.support import subproject

if __name__ == "__main__":
    django.setup()
    from django.core.management import call_command

    # Create the tables here, because `set_up` migrates only the database `default`, which must contain no table.
    call_command("migrate", database="second", verbosity=0, interactive=False)
    subproject.set_up()
    from django.contrib.auth import get_user_model
    from django.db import transaction
    from django.utils import timezone
    from oauth2_provider.models import get_access_token_model

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

    def revoke_oauth2_tokens() -> None:
        expires = timezone.now() + timedelta(hours=1)
        get_access_token_model().objects.create(user=user, token=f"token {time.time_ns()}", expires=expires)
        audit.revoke_with_oauth2_tokens(
            audit.revocable_tokens().none(), [user], keks=conf.key_encryption_keys, reason="laptop lost"
        )

    @contextmanager
    def logged(text: str) -> Iterator[list[str]]:
        """Yield a list to which each log line with this text is added."""
        lines: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage()) if text in record.getMessage() else None  # type: ignore[method-assign]
        logger = logging.getLogger("instaccess")
        logger.addHandler(handler)
        try:
            yield lines
        finally:
            logger.removeHandler(handler)

    def count(
        collect: Callable[[], AbstractContextManager[list[Any]]],
        act: Callable[[], object],
        alias: str,
        *,
        commit: bool,
    ) -> tuple[int, int]:
        """Call `act` in a transaction. Returns how many items are collected before and after the transaction ends."""
        with collect() as facts:
            with transaction.atomic(using=alias):
                act()
                before = len(facts)
                transaction.set_rollback(not commit, using=alias)
            return before, len(facts)

    issue_token()
    acts: dict[str, tuple[Callable[[], AbstractContextManager[list[Any]]], Callable[[], object]]] = {
        # The loop below doesn't issue tokens in a transaction on `second`, because the database with the audit log
        # must not have an open transaction.
        "token_issued": (partial(received, signals.token_issued), issue_token),
        "tokens_revoked": (partial(received, signals.tokens_revoked), revoke_tokens),
        "log of revoked OAuth2 tokens": (partial(logged, "OAuth2 tokens"), revoke_oauth2_tokens),
        "key_changed": (partial(received, signals.key_changed), lambda: keys.generate(Key.Use.SIGNING)),
        "key_changed by a deletion": (
            partial(received, signals.key_changed),
            lambda: Key.objects.filter(status="future").first().delete(),
        ),
    }
    results: dict[str, dict[str, tuple[int, int]]] = {
        "second": {},
        "second, rolled back": {},
        "default, rolled back": {},
    }
    for name, (collect, act) in acts.items():
        if name != "token_issued":
            results["second, rolled back"][name] = count(collect, act, "second", commit=False)
            results["second"][name] = count(collect, act, "second", commit=True)
        issue_token()
        results["default, rolled back"][name] = count(collect, act, "default", commit=False)
    subproject.print_result(results)
