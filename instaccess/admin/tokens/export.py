"""The export of issued tokens as a file, with the filters of the list and the latest tokens first."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.admin.views.main import ALL_VAR, ERROR_FLAG, ORDER_VAR, PAGE_VAR, SEARCH_VAR
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotAllowed,
    StreamingHttpResponse,
)
from django.urls import URLPattern, path
from django.utils import timezone

from ...audit import Export, Format
from ..common import ReadOnlyAdmin

# An export ignores these parameters. The parameters choose the page, the order and the error message of the change
# list, and don't affect which rows match the filters.
_PAGE_PARAMETERS = (PAGE_VAR, ALL_VAR, ORDER_VAR, ERROR_FLAG)
_LOGGED_CHARS = 64


class ExportPages(ReadOnlyAdmin):
    """An admin of read-only issued tokens, with an export as CSV or JSON Lines for users who may view tokens."""

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
        """Return the tokens that match the filters, as a file. GET is allowed, because nothing is changed."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in {"GET", "HEAD"}:
            return HttpResponseNotAllowed(["GET", "HEAD"])
        try:
            export_format = Format(file_format)
        except ValueError:
            raise Http404 from None
        query = request.GET.copy()
        for name in _PAGE_PARAMETERS:
            query.pop(name, None)
        request.GET = query  # type: ignore[assignment]
        rows = self.get_changelist_instance(request).queryset
        name = f"issued-tokens-{timezone.now().astimezone(UTC):%Y-%m-%d}.{export_format.value}"
        headers = {
            "Content-Type": export_format.content_type,
            "Content-Disposition": f'attachment; filename="{name}"',
            "X-Content-Type-Options": "nosniff",
        }
        if request.method == "HEAD":
            return HttpResponse(headers=headers)
        export = Export(rows, export_format, by=request.user.get_username(), filters=_filters(request))
        chunks = iter(export)
        return StreamingHttpResponse(
            _AsyncChunks(chunks) if isinstance(request, ASGIRequest) else chunks, headers=headers
        )


def _filters(request: HttpRequest) -> dict[str, str]:
    """Return the filters for the log, without the searched text, because the text can contain a token."""
    return {
        name: "(not logged)" if name == SEARCH_VAR else ",".join(values)[:_LOGGED_CHARS]
        for name, values in request.GET.lists()
    }


class _AsyncChunks:
    """An asynchronous iterator over the chunks of an export.

    Under ASGI, Django would read all chunks of a synchronous iterator into memory before sending the first chunk.
    `sync_to_async` generates each chunk in the thread that has the database connection.
    """

    def __init__(self, chunks: Any) -> None:
        self._chunks = chunks

    def __aiter__(self) -> _AsyncChunks:
        return self

    async def __anext__(self) -> str:
        chunk: str | None = await sync_to_async(self._next)()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def _next(self) -> str | None:
        return next(self._chunks, None)

    def close(self) -> None:
        """Stop the export. Django calls this method after the response, even if the client has disconnected."""
        self._chunks.close()
