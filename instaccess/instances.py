"""Instances of models made from values that are all there, without the way through every field that Django goes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from django.db import models
from django.db.models.base import ModelState
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_init, pre_init

_M = TypeVar("_M", bound=models.Model)


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
    ours: Any = models.Model
    return (
        model.__init__ is ours.__init__
        and model.__new__ is ours.__new__
        and model.__setattr__ is ours.__setattr__
        and model.from_db.__func__ is ours.from_db.__func__  # type: ignore[attr-defined]
        and all(issubclass(field.descriptor_class, DeferredAttribute) for field in model._meta.concrete_fields)
    )
