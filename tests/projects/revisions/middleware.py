"""Two fixed variants of django-reversion's middleware, as the system check instaccess.W021 describes."""

from reversion.middleware import RevisionMiddleware


class WithoutTransaction(RevisionMiddleware):
    atomic = False


class ExcludesIssuing(RevisionMiddleware):
    def request_creates_revision(self, request):
        return "inst_access_tokens" not in request.path and super().request_creates_revision(request)
