"""A script that changes keys in a second database, and prints the results as JSON.

The first change fails and is rolled back. After the second change, a receiver of the signal reads the keys.
"""

from contextlib import suppress
from typing import Any

import django

from tests.support import subproject

if __name__ == "__main__":
    django.setup()
    from django.core.management import call_command

    # Create the tables here, because `set_up` migrates only the database `default`, which must contain no table.
    call_command("migrate", database="second", verbosity=0, interactive=False)
    subproject.set_up()

    from instaccess import keys, signals
    from instaccess.exceptions import KeyUnavailable
    from instaccess.keys import store
    from instaccess.models import Key
    from tests.support.receiving import connected

    signing = Key.objects.filter(use="sig")

    def change_keys() -> str:
        """Make the future signing key current. Returns the kid of this key."""
        with store.locked() as stored:
            # Simulate a request in this process that reads the old keys before the transaction ends.
            keys.current_ring()
            current, future = stored.get(use="sig", status="current"), stored.get(use="sig", status="future")
            store.succeed(current, future, keys.current_time())
        return future.kid

    with suppress(KeyUnavailable), store.locked() as stored:
        store.erase(stored.get(use="sig", status="future"))
        keys.find_key("a kid that does not exist")
    erased = not signing.get(status="future").has_private

    seen: list[str] = []

    def receive(**facts: Any) -> None:
        seen.append(keys.current_ring().signing_key().kid)

    with connected(signals.key_changed, receive):
        new = change_keys()

    subproject.print_result({"erased": erased, "new": new, "seen": seen})
