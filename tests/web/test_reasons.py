"""The explanations of reasons: every reason has one, in sentences."""

from __future__ import annotations

import pytest

from instaccess.exceptions import Reason
from instaccess.web.explanations import EXPLANATIONS
from instaccess.web.reasons import ACCEPTED_BY_GATEWAY, ACCEPTED_BY_SERVICE, DETAILED, Variant, explain

EVERY_EXPLANATION = [*EXPLANATIONS.values(), *DETAILED.values(), ACCEPTED_BY_GATEWAY, ACCEPTED_BY_SERVICE]


class TestTheExplanations:
    def test_cover_every_reason(self):
        assert set(EXPLANATIONS) == set(Reason)

    @pytest.mark.parametrize("explanation", EVERY_EXPLANATION)
    def test_are_sentences(self, explanation):
        for text in map(str, explanation):
            assert text[0].isupper()
            assert text.endswith(".")


class TestExplain:
    def test_gives_what_is_known_beyond_the_reason(self):
        assert explain(Reason.UNKNOWN_KID, Variant.REVOKED) == DETAILED[Reason.UNKNOWN_KID, Variant.REVOKED]

    def test_falls_back_to_the_reason_when_nothing_more_is_known(self):
        assert explain(Reason.EXPIRED, Variant.GONE) == EXPLANATIONS[Reason.EXPIRED]
        assert explain(Reason.EXPIRED) == EXPLANATIONS[Reason.EXPIRED]

    def test_refers_to_the_detail_for_a_code_that_an_extension_made_up(self):
        assert explain("made up") == EXPLANATIONS[Reason.INVALID]  # type: ignore[arg-type]
