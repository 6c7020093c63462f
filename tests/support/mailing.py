"""Error emails to the administrators. The fixture `error_mail` makes Django send them."""

from __future__ import annotations

import django
from django.core import mail

# Django 6.0 deprecates pairs of name and address. Earlier versions accept only pairs.
ADMINS = ["ops@example.edu"] if django.VERSION >= (6, 0) else [("Ops", "ops@example.edu")]


def mailed() -> str:
    """Return the text of all sent emails."""
    return "\n".join(
        part
        for message in mail.outbox
        for part in (message.subject, message.body, *(str(alternative[0]) for alternative in message.alternatives))
    )
