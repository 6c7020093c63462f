"""The list of issued tokens as a file: what its filters and its search leave, the latest first."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ALL_VAR, ERROR_FLAG, ORDER_VAR, PAGE_VAR, SEARCH_VAR
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from ...audit import Export, Format
from ..common import ReadOnlyAdmin

# They choose what of the list is on the screen, not what is in the list.
_OF_THE_PAGE = (PAGE_VAR, ALL_VAR, ORDER_VAR, ERROR_FLAG)
_LOGGED_CHARS = 64


class ExportPages(ReadOnlyAdmin):
    """Rows to look at, and to take away as CSV or JSON Lines with the permission to view them."""

    def get_urls(self) -> list[URLPattern]:
        return [
            path(
                "export/<str:file_format>/",
                self.admin_site.admin_view(self.export_view),
                name="instaccess_issuedtoken_export",
            ),
            *super().get_urls(),
        ]

    def export_view(self, request: HttpRequest, file_format: str) -> HttpResponseBase:
        """GET with the query string of the list. It changes nothing, so a link will do."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in {"GET", "HEAD"}:
            return HttpResponseNotAllowed(["GET", "HEAD"])
        try:
            written_as = Format(file_format)
        except ValueError:
            raise Http404 from None
        query = request.GET.copy()
        for name in _OF_THE_PAGE:
            query.pop(name, None)
        request.GET = query  # type: ignore[assignment]
        try:
            rows = self.get_changelist_instance(request).queryset
        except IncorrectLookupParameters:
            # To the list, which says what is wrong where somebody can see it.
            changelist = reverse("admin:instaccess_issuedtoken_changelist", current_app=self.admin_site.name)
            return HttpResponseRedirect(f"{changelist}?{ERROR_FLAG}=1")
        name = f"issued-tokens-{timezone.now().astimezone(UTC):%Y-%m-%d}.{written_as.value}"
        headers = {
            "Content-Type": written_as.content_type,
            "Content-Disposition": f'attachment; filename="{name}"',
            "X-Content-Type-Options": "nosniff",
        }
        if request.method == "HEAD":
            return HttpResponse(headers=headers)
        export = Export(rows, written_as, by=request.user.get_username(), filters=_filters(request))
        chunks = iter(export)
        return StreamingHttpResponse(
            _Fetched(chunks) if isinstance(request, ASGIRequest) else chunks, headers=headers
        )


def _filters(request: HttpRequest) -> dict[str, str]:
    """For the log. Not what was searched for: people paste anything into a search box, tokens too."""
    return {
        name: "(not logged)" if name == SEARCH_VAR else ",".join(values)[:_LOGGED_CHARS]
        for name, values in request.GET.lists()
    }


class _Fetched:
    """The chunks for an event loop, each made in the thread that has the database connection.

    Given a plain iterator under ASGI, Django would gather all of it in memory first.
    """

    def __init__(self, chunks: Any) -> None:
        self._chunks = chunks

    def __aiter__(self) -> _Fetched:
        return self

    async def __anext__(self) -> str:
        chunk: str | None = await sync_to_async(self._next)()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def _next(self) -> str | None:
        return next(self._chunks, None)

    def close(self) -> None:
        """Called by Django at the end, also where the client has gone."""
        self._chunks.close()
