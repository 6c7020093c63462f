"""Classes that a host project may configure for its own API. The classes must not change the issuer's responses."""

from __future__ import annotations

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.permissions import BasePermission
from rest_framework.renderers import BaseRenderer
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle


class HTML(BaseRenderer):
    media_type = "text/html"
    format = "html"

    def render(self, data, accepted_media_type=None, renderer_context=None):
        return b"<html>theirs</html>"


class FailingParser(BaseParser):
    media_type = "*/*"

    def parse(self, stream, media_type=None, parser_context=None):
        raise RuntimeError("the host project's parser was called")


class DenyEveryone(BasePermission):
    def has_permission(self, request, view):
        return False


class ThrottleEveryone(BaseThrottle):
    def allow_request(self, request, view):
        return False

    def wait(self):
        return 3600


class RefuseEveryone(BaseAuthentication):
    def authenticate(self, request):
        raise AuthenticationFailed("theirs")

    def authenticate_header(self, request):
        return "Theirs"


class FailingNegotiation(BaseContentNegotiation):
    def select_parser(self, request, parsers):
        raise RuntimeError("the host project's negotiation was called")

    def select_renderer(self, request, renderers, format_suffix=None):
        raise RuntimeError("the host project's negotiation was called")


def handle_exception(exc, context):
    return Response({"theirs": True}, status=418)


class FormReader:
    """A middleware that reads the form of a request before the view runs."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        request.POST.get("x")
        return self.get_response(request)


class BodyReader:
    """A middleware that reads the body of a request before the view runs, and the form after the view has run."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        request.body  # noqa: B018
        response = self.get_response(request)
        request.POST.get("x")
        return response


class StreamReader:
    """A middleware that consumes the body of a request as a stream before the view runs."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        request.read()
        return self.get_response(request)
