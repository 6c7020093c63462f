"""The ASGI application of the test project."""

import os

from django.core.asgi import get_asgi_application

from instaccess.asgi import without_websockets

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")

application = without_websockets(get_asgi_application())
