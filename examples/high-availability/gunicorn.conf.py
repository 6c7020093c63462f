"""The configuration of gunicorn for an issuer or a gateway that is one of several behind nginx.

gunicorn project.wsgi --config gunicorn.conf.py --bind 10.0.0.11:8001

docs/high-availability.md describes the reasons.
"""

workers = 2
# A sync worker answers one request at a time and closes each connection. A gthread worker keeps nginx's connections
# open, and answers other requests and probes while one request waits for the issuer or the database.
worker_class = "gthread"
threads = 4

# nginx closes an idle connection to a gateway after 60 seconds. gunicorn waits longer, because nginx could send a
# request on a connection that gunicorn is about to close.
keepalive = 75

# After TERM or HUP, a worker gets this number of seconds to finish its requests. systemd (`TimeoutStopSec`) and
# Kubernetes (`terminationGracePeriodSeconds`) must wait longer before they kill the server.
graceful_timeout = 30

# By default, gunicorn refuses a header of more than 8190 bytes. A token can be 8 KiB long, so the Authorization
# header can be longer than this limit.
limit_request_field_size = 16380

# With preload_app, HUP would not load a new release, because the main process imports the project only once. If you
# never use HUP, set preload_app to True. A node that starts then refuses connections until the project is imported.
preload_app = False


def post_worker_init(worker):
    """Load the keys, the JWKS and the deny list before the worker accepts its first connection."""
    # gunicorn reads this file before Django is set up.
    from instaccess.warmup import warm_up  # noqa: PLC0415

    warm_up()
