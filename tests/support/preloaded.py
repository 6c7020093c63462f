"""The WSGI application of the test project for gunicorn's `--preload`. The keys are loaded before workers fork."""

from instaccess.warmup import warm_up
from testproject.wsgi import application

__all__ = ["application"]

warm_up()
