"""What a request to the issuing endpoint says beside its header: its query, and its form where it has one."""

from __future__ import annotations

import logging
from typing import Any

from django.core.files.uploadhandler import FileUploadHandler, SkipFile
from django.http import HttpRequest, QueryDict

logger = logging.getLogger("instaccess.issuer")

_NO_QUERY = QueryDict("", encoding="utf-8")
_FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})


def query(request: HttpRequest) -> QueryDict:
    """The query. Django's own `request.GET` reads it in the charset that the Content-Type of the body names.

    Raises SuspiciousOperation for more parameters than Django takes.
    """
    text = request.META.get("QUERY_STRING", "")
    return QueryDict(text, encoding="utf-8") if text else _NO_QUERY


class _NoFiles(FileUploadHandler):
    """Files have no business here: skipped piece by piece, neither written to disk nor gathered in memory."""

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        raise SkipFile

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        return None

    def file_complete(self, file_size: int) -> None:
        return None


def form(request: HttpRequest) -> Any:
    """The form body; empty where it can't be parsed (contract: content type and body never matter)."""
    # For Django, too, there is no form then, unless a middleware has made one.
    if request.content_type not in _FORMS and not hasattr(request, "_post"):
        return {}
    try:
        if not hasattr(request, "_files") and not hasattr(request, "_post"):  # nor read or replaced by a middleware
            # Not in a charset that the sender chooses: some, such as punycode, take minutes for a megabyte. Set by
            # its public name, it would undo what a middleware has put in place of the query.
            request._encoding = "utf-8"  # type: ignore[attr-defined]
            # With no handler at all Django would read the whole body at once.
            request.upload_handlers = [_NoFiles(request)]
        return request.POST
    except Exception as error:  # Django lets out a dozen kinds for a dozen ways to be broken
        logger.debug("form body not parsed: %s", type(error).__name__)
        return {}
