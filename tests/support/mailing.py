"""The administrators who get error emails, and a function that returns the text of the emails that Django has sent.

The fixture `error_mail` enables the error emails.
"""

from __future__ import annotations

import django
from django.core import mail

# Django 6.0 deprecates pairs of name and address, but earlier versions accept only pairs.
ADMINS = ["ops@example.edu"] if django.VERSION >= (6, 0) else [("Ops", "ops@example.edu")]


def mailed() -> str:
    """Return the subjects and the texts of all sent emails as one string."""
    return "\n".join(
        part
        for message in mail.outbox
        for part in (message.subject, message.body, *(str(alternative[0]) for alternative in message.alternatives))
    )
