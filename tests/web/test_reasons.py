"""The explanations of reasons: complete, and written in sentences."""

from __future__ import annotations

import pytest

from instaccess.exceptions import Reason
from instaccess.web.explanations import EXPLANATIONS
from instaccess.web.reasons import ACCEPTED_BY_GATEWAY, ACCEPTED_BY_SERVICE, DETAILED, Variant, explain

EVERY_EXPLANATION = [*EXPLANATIONS.values(), *DETAILED.values(), ACCEPTED_BY_GATEWAY, ACCEPTED_BY_SERVICE]


class TestTheExplanations:
    def test_explanations_cover_every_reason(self):
        assert set(EXPLANATIONS) == set(Reason)

    @pytest.mark.parametrize("explanation", EVERY_EXPLANATION)
    def test_explanations_are_sentences(self, explanation):
        for text in map(str, explanation):
            assert text[0].isupper()
            assert text.endswith(".")


class TestExplain:
    def test_explain_returns_the_explanation_of_the_variant(self):
        assert explain(Reason.UNKNOWN_KID, Variant.REVOKED) == DETAILED[Reason.UNKNOWN_KID, Variant.REVOKED]

    def test_explain_falls_back_to_the_explanation_of_the_reason(self):
        assert explain(Reason.EXPIRED, Variant.GONE) == EXPLANATIONS[Reason.EXPIRED]
        assert explain(Reason.EXPIRED) == EXPLANATIONS[Reason.EXPIRED]

    def test_explain_refers_to_the_detail_for_an_unknown_code(self):
        assert explain("made up") == EXPLANATIONS[Reason.INVALID]  # type: ignore[arg-type]
