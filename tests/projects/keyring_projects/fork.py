"""A process forks, as application servers do, while a thread of it holds the lock and reads the keys."""

import json
import os
import signal
import threading
import warnings
from typing import Any

from tests.support import subproject

if __name__ == "__main__":
    subproject.set_up()
    from django.db import connection, connections

    from instaccess.keys import ring as keys_ring

    reading, may_go_on = threading.Event(), threading.Event()

    def wait(execute: Any, *args: Any) -> Any:
        reading.set()
        may_go_on.wait()
        return execute(*args)

    def read_slowly() -> None:
        with connection.execute_wrapper(wait):
            keys_ring.current_ring()
        connection.close()

    thread = threading.Thread(target=read_slowly)
    thread.start()
    reading.wait()
    connections.close_all()
    answer, question = os.pipe()
    with warnings.catch_warnings():
        # Newer Pythons warn of forking with threads, for the very reason that this script is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(60)  # a lock that is never released ends here, and is told by the exit status
        ring = keys_ring.current_ring()
        facts = {"kid": ring.signing_key().kid, "private": ring.signing_key().private().has_private}
        os.write(question, json.dumps(facts).encode())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    os.close(question)
    with os.fdopen(answer) as said:
        in_child = json.loads(said.read() or "null")
    may_go_on.set()
    thread.join()
    subproject.say({"status": status, "child": in_child, "parent": keys_ring.current_ring().signing_key().kid})
