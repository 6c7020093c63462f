"""The ASGI application of the benchmarks, which loads the keys before the first request as docs/speed.md advises."""

import os

from django.core.asgi import get_asgi_application

from instaccess.warmup import warm_up

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
application = get_asgi_application()
warm_up()
