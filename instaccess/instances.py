"""Instances of models made from values that are all there, without the way through every field that Django goes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from django.db import models
from django.db.models.base import ModelState
from django.db.models.fields.related_descriptors import ForeignKeyDeferredAttribute
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_init, pre_init

_M = TypeVar("_M", bound=models.Model)
_TAKE_PART = ("__init__", "__new__", "__setattr__", "from_db")


def can_make(model: type[models.Model]) -> bool:
    """Whether `make` comes to the same as `Model.__init__`: nothing of the model's own takes part, and nobody waits
    for its signals."""
    return _is_plain(model) and not pre_init.has_listeners(model) and not post_init.has_listeners(model)


def make(model: type[_M], values: Mapping[str, Any], *, alias: str | None = None) -> _M:
    """An instance with these values, by `attname`: a row of that database, or a new one. A field without a value is
    a deferred one (Django reads it when asked for)."""
    instance = model.__new__(model)
    state = ModelState()
    state.db, state.adding = alias, alias is None
    instance.__dict__.update(values, _state=state)
    return instance


@cache
def _is_plain(model: type[models.Model]) -> bool:
    # `Model.__init__` ends with `super().__init__()`: what stands behind it counts, too.
    own = [vars(base) for base in model.__mro__ if base not in models.Model.__mro__]
    return not any(name in theirs for theirs in own for name in _TAKE_PART) and all(
        type(getattr(model, field.attname)) in (DeferredAttribute, ForeignKeyDeferredAttribute)
        for field in model._meta.concrete_fields
    )
