"""Authentication of FastAPI requests by InstAccess tokens (extra `fastapi`).

Only FastAPI projects import this module. The module needs no Django settings.
"""

from __future__ import annotations

from collections.abc import Collection

from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from .permissions import Condition
from .starlette import TokenRequired, answer_refusals
from .verifier import Verifier

__all__ = ["InstAccessBearer", "answer_refusals"]


class InstAccessBearer(TokenRequired, SecurityBase):
    """A dependency that returns the claims of a request's token, and describes the token in the OpenAPI schema.

    Call `answer_refusals` with the application, so that refusals have Canvas's bodies and headers.

    This class has the same arguments as `TokenRequired`.
    """

    def __init__(self, verifier: Verifier, *, allow: Collection[Condition] = ()) -> None:
        super().__init__(verifier, allow=allow)
        self.model = HTTPBearer(bearerFormat="JWT", description="An InstAccess token, signed, from the gateway.")
        self.scheme_name = "InstAccess"
