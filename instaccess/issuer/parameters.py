"""The parameters of a request to the issuing endpoint, from the query and the form body."""

from __future__ import annotations

from typing import Any

from django.core.files.uploadhandler import FileUploadHandler, SkipFile
from django.http import HttpRequest, QueryDict

from ..logs import get_logger

logger = get_logger("instaccess.issuer")

_NO_QUERY = QueryDict("")
_FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})


def query(request: HttpRequest) -> QueryDict:
    """Parse the query as UTF-8. Django's `request.GET` would use the charset of the body's Content-Type instead.

    Raises SuspiciousOperation if the query has more than DATA_UPLOAD_MAX_NUMBER_FIELDS parameters.
    """
    text = request.META.get("QUERY_STRING", "")
    return QueryDict(text, encoding="utf-8") if text else _NO_QUERY


class _NoFiles(FileUploadHandler):
    """An upload handler that skips files, so that Django doesn't store uploaded files on disk or in memory."""

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        raise SkipFile

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        return None

    def file_complete(self, file_size: int) -> None:
        return None


def form(request: HttpRequest) -> Any:
    """Parse the form body, and return the parameters. Returns an empty mapping if the body can't be parsed.

    A body that can't be parsed is not an error, because Canvas accepts any body (docs/wire-contract.md §1).
    """
    # Return no parameters for a body that is not a form. If a middleware has already parsed the body and set `_post`,
    # return the parsed parameters, whatever the content type is.
    if request.content_type not in _FORMS and not hasattr(request, "_post"):
        return {}
    try:
        if not hasattr(request, "_post"):
            # The client chooses the charset of the form. Always decode the form as UTF-8, because decoding a megabyte
            # in some charsets, such as punycode, takes minutes. Set `_encoding` directly, because the setter of
            # `encoding` would also delete `request.GET`, which a middleware may have replaced.
            request._encoding = "utf-8"  # type: ignore[attr-defined]
            # Skip files. With its default upload handlers, Django would store the files in memory or on disk.
            request.upload_handlers = [_NoFiles(request)]
        return request.POST
    except Exception as error:  # Django raises many kinds of exceptions for malformed forms.
        logger.debug("the form body could not be parsed: %(error)s", error=type(error).__name__)
        return {}
