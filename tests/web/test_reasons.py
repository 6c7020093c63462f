"""The words for reason codes: every code that the package raises has them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import instaccess
from instaccess import exceptions
from instaccess.web.reasons import EXPLANATIONS, explain

pytestmark = pytest.mark.django_db

PACKAGE = Path(instaccess.__file__).parent
RAISING = ["jose", "compact", "claims", "gateway", "forward_auth", "consumer", "sealing"]


def codes_in(name: str) -> set[str]:
    """Every `code="…"` that something is raised or answered with in a file."""
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    return {
        word.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute))
        for word in node.keywords
        if word.arg == "code"
        and isinstance(word.value, ast.Constant)
        and "ClaimsTooLarge" not in ast.unparse(node.func)
    }


def codes_of_errors() -> set[str]:
    """The codes of the errors that a refusal can be, or that keep anybody from deciding."""
    roots = (exceptions.InvalidToken, exceptions.KeyUnavailable, exceptions.ConfigError)
    return {error.code for error in vars(exceptions).values() if isinstance(error, type) and issubclass(error, roots)}


class TestTheWords:
    @pytest.mark.parametrize(
        "name", ["jose", "compact", "claims", "gateway", "exceptions", "forward_auth", "consumer", "sealing"]
    )
    def test_explain_every_reason_there_is_in(self, name):
        assert codes_in(name) - EXPLANATIONS.keys() == set()

    def test_explain_every_error(self):
        assert codes_of_errors() - EXPLANATIONS.keys() == set()

    def test_explain_nothing_that_does_not_exist(self):
        known = codes_of_errors() | {"accepted"}
        for name in RAISING:
            known |= codes_in(name)

        assert {key.partition(":")[0] for key in EXPLANATIONS} - known == set()

    def test_are_found_by_the_reader_of_codes(self):
        assert {"wrong_alg", "bad_signature"} <= codes_in("jose")
        assert "malformed" in codes_in("compact")
        assert {"bad_claim", "not_yet"} <= codes_in("claims")

    @pytest.mark.parametrize("code", EXPLANATIONS)
    def test_are_sentences(self, code):
        for text in map(str, EXPLANATIONS[code]):
            assert text[0].isupper()
            assert text.endswith(".")

    def test_for_a_code_from_the_future_refer_to_the_detail(self):
        assert explain("made up") == EXPLANATIONS["invalid"]
