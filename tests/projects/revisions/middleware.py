"""Variants of django-reversion's middleware with the two fixes that the system check instaccess.W021 suggests."""

from reversion.middleware import RevisionMiddleware


class WithoutTransaction(RevisionMiddleware):
    atomic = False


class ExcludesIssuing(RevisionMiddleware):
    def request_creates_revision(self, request):
        return "inst_access_tokens" not in request.path and super().request_creates_revision(request)
