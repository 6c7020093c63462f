"""Tests that the explanations of reasons are complete and consist of sentences."""

from __future__ import annotations

import pytest

from instaccess.exceptions import Reason
from instaccess.web.explanations import EXPLANATIONS
from instaccess.web.reasons import ACCEPTED_BY_GATEWAY, ACCEPTED_BY_SERVICE, DETAILED, Variant, explain

EVERY_EXPLANATION = [*EXPLANATIONS.values(), *DETAILED.values(), ACCEPTED_BY_GATEWAY, ACCEPTED_BY_SERVICE]


class TestTheExplanationsOfReasons:
    def test_every_reason_has_an_explanation(self):
        assert set(EXPLANATIONS) == set(Reason)

    @pytest.mark.parametrize("explanation", EVERY_EXPLANATION)
    def test_every_explanation_consists_of_sentences(self, explanation):
        for text in map(str, explanation):
            assert text[0].isupper()
            assert text.endswith(".")


class TestExplain:
    def test_explain_returns_the_explanation_of_a_variant_of_a_reason(self):
        assert explain(Reason.UNKNOWN_KID, Variant.REVOKED) == DETAILED[Reason.UNKNOWN_KID, Variant.REVOKED]

    def test_explain_returns_the_explanation_of_the_reason_if_the_variant_has_no_explanation(self):
        assert explain(Reason.EXPIRED, Variant.GONE) == EXPLANATIONS[Reason.EXPIRED]
        assert explain(Reason.EXPIRED) == EXPLANATIONS[Reason.EXPIRED]

    def test_explain_returns_the_explanation_of_the_reason_invalid_for_an_unknown_code(self):
        assert explain("made up") == EXPLANATIONS[Reason.INVALID]  # type: ignore[arg-type]
