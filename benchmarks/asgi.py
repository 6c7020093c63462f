"""The ASGI application of the benchmarks: keys are loaded and used before the first request, as under gunicorn."""

import os
import threading

from django.core.asgi import get_asgi_application
from django.db import connections

from . import worker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
application = get_asgi_application()


def _warm_up() -> None:
    try:
        worker.post_worker_init(None)
    finally:
        connections.close_all()


# uvicorn imports this within its event loop, where Django refuses to ask a database.
_thread = threading.Thread(target=_warm_up)
_thread.start()
_thread.join()
