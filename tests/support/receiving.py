"""A receiver that collects the facts of a signal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.dispatch import Signal


@contextmanager
def received(signal: Signal) -> Iterator[list[dict[str, Any]]]:
    """Connect a receiver to a signal. Yields a list to which the facts of each sent signal are added."""
    facts: list[dict[str, Any]] = []

    def receive(sender: Any, signal: Signal, **sent: Any) -> None:
        facts.append(sent)

    with connected(signal, receive):
        yield facts


@contextmanager
def connected(signal: Signal, receiver: Any) -> Iterator[None]:
    """Connect a function to a signal until the context ends."""
    signal.connect(receiver, weak=False)
    try:
        yield
    finally:
        signal.disconnect(receiver)
