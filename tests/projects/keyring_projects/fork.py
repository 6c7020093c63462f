"""A script that forks, as application servers do, while one of its threads reads the keys."""

import contextlib
import json
import os
import signal
import threading
import warnings
from typing import Any

from tests.support import subproject

if __name__ == "__main__":
    subproject.set_up()
    from django.db import connections

    from instaccess.exceptions import SourceUnavailable
    from instaccess.keys import ring as keys_ring

    reading, may_continue = threading.Event(), threading.Event()
    load, parent = keys_ring.load, os.getpid()

    def load_slowly(*args: Any) -> Any:
        if os.getpid() == parent:
            reading.set()
            may_continue.wait()
        return load(*args)

    def read() -> None:
        # Ignore this error, because a slow child can take longer than this thread waits for the keys.
        with contextlib.suppress(SourceUnavailable):
            keys_ring.current_ring()

    keys_ring.load = load_slowly
    thread = threading.Thread(target=read)
    thread.start()
    reading.wait()
    connections.close_all()
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        # The test needs this kind of fork: if a thread of the parent holds a lock during a fork, the child can never
        # acquire the lock. Newer versions of Python warn about such a fork.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(60)  # If the child waits forever for the lock, the alarm kills the child.
        ring = keys_ring.current_ring()
        facts = {"kid": ring.signing_key().kid, "private": ring.signing_key().private().has_private}
        os.write(write_end, json.dumps(facts).encode())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    os.close(write_end)
    with os.fdopen(read_end) as output:
        child_facts = json.loads(output.read() or "null")
    may_continue.set()
    thread.join()
    subproject.print_result(
        {"status": status, "child": child_facts, "parent": keys_ring.current_ring().signing_key().kid}
    )
