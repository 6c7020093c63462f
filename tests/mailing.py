"""Django's error e-mails, as its administrators get them; the fixture `error_mail` has them sent."""

from __future__ import annotations

from django.core import mail


def mailed() -> str:
    """All that stands in these e-mails."""
    return "\n".join(
        part
        for message in mail.outbox
        for part in (message.subject, message.body, *(str(alternative[0]) for alternative in message.alternatives))
    )
