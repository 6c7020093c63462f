"""Functions that send the signal `key_changed` with the facts of a key."""

from __future__ import annotations

from typing import Any

from django.db import router
from django.db.models.signals import post_delete
from django.dispatch import receiver

from ..models import Key
from ..signals import KeyChange, KeyChanged, key_changed
from ..users import operator_name


def announce(key: Key, change: KeyChange, *, reason: str = "", by: Any = None) -> None:
    """Send the signal `key_changed` after the transaction that changes the key was committed.

    Args:
        key: the key after the change. The facts are read now, because later code may change the object.
        reason: the reason for a revocation. Empty for any other change.
        by: the operator who revoked the key, as a user or a name. None for any other change.
    """
    facts = KeyChanged(
        kid=key.kid,
        use=str(key.use),
        change=change,
        status=str(key.status),
        has_private=key.has_private,
        reason=reason,
        by=operator_name(by),
        by_user_id=getattr(by, "pk", None),
    )
    key_changed.announce_after_commit(Key, lambda: facts, using=router.db_for_write(Key))


@receiver(post_delete, sender=Key)
def _announce_deletion(instance: Key, **kwargs: Any) -> None:
    """Announce that the row of a key was deleted with Django's ORM. This app itself never deletes a key."""
    announce(instance, KeyChange.DELETED)
