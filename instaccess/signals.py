"""The signals of this app."""

from django.dispatch import Signal

tokens_revoked = Signal()
"""A signal that is sent after a transaction has revoked tokens. The sender is `IssuedToken`.

Receivers get `jtis` (a list of strings), `reason` (a string) and `by` (a user, a string such as
`uid 0 (root), command line`, or None).
"""
