"""Django's error e-mails, as its administrators get them; the fixture `error_mail` has them sent."""

from __future__ import annotations

import django
from django.core import mail

# Pairs with a name are deprecated since 6.0, where an address is enough.
ADMINS = ["ops@example.edu"] if django.VERSION >= (6, 0) else [("Ops", "ops@example.edu")]


def mailed() -> str:
    """All that stands in these e-mails."""
    return "\n".join(
        part
        for message in mail.outbox
        for part in (message.subject, message.body, *(str(alternative[0]) for alternative in message.alternatives))
    )
