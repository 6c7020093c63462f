"""A function that runs code in a forked process while the parent holds a lock."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any


def run_in_child(lock: Any, function: Callable[[], Any]) -> Any:
    """Fork while this process holds a lock, as a thread of a server may do, and call a function in the child.

    The child can never acquire the lock, because the thread that holds the lock exists only in the parent. Returns
    the result of the function. Fails if the child waits for the lock.
    """
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    with lock:
        child = context.Process(target=lambda: results.put(function()))
        child.start()
    child.join(60)
    if child.is_alive():
        child.kill()
        child.join()
    assert child.exitcode == 0, "the child waits for the lock of its parent, or failed"
    return results.get()
