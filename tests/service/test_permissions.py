"""Tests of the conditions of a view: which values are conditions, and which results allow a request."""

from __future__ import annotations

from typing import Any

import pytest

from instaccess.service import AcceptedClaims, from_application
from instaccess.service.permissions import is_allowed
from tests.service.helpers import OTHER_CLAIMS


class TestTheResultOfACondition:
    @pytest.mark.parametrize("result", [1, "yes", [True], None, 0, False])
    def test_condition_allows_a_request_only_if_its_result_is_true(self, result):
        claims = AcceptedClaims(**OTHER_CLAIMS)

        assert is_allowed(claims, [lambda claims: True])
        assert not is_allowed(claims, [lambda claims: True, lambda claims: result])


class TestAConditionForApplications:
    @pytest.mark.parametrize("client_ids", [(), ("",), ("lms", ""), (7,), (None,), (["lms"],), ("lms", b"lms")])
    def test_condition_for_applications_needs_client_ids_that_are_strings_and_not_empty(self, client_ids: Any):
        with pytest.raises(ValueError, match="client ids as strings"):
            from_application(*client_ids)
