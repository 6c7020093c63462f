"""Signals that this app sends."""

from django.dispatch import Signal

tokens_revoked = Signal()


"""Sent after tokens were revoked, by IssuedToken: `jtis` (list of texts), `reason`, `by` (a user, a text such as
`root (command line)`, or None)."""
