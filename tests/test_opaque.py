"""Tests that opaque objects never print, copy or pickle the secret that they contain."""

from __future__ import annotations

import copy
import json
import pickle
import pprint
import re
import traceback
from dataclasses import asdict, dataclass
from typing import Any

import pytest
from jwcrypto.common import JWException

from instaccess.exceptions import KeyRefused, UnexpectedError
from instaccess.opaque import Opaque, OpaqueText, concealed
from tests.support.error_reports import read_exception

SECRET = "the-secret"
OPAQUE = Opaque(SECRET)


@dataclass
class Holder:
    member: Opaque[str]


class TestAnOpaqueObject:
    def test_a1_reveal_returns_the_secret_of_an_opaque_object(self):
        assert OPAQUE.reveal() == SECRET

    @pytest.mark.parametrize(
        "text",
        [
            repr(OPAQUE),
            str(OPAQUE),
            f"{OPAQUE}",
            f"{OPAQUE:>30}",
            f"{OPAQUE!r:>10}",
            "%s %r" % (OPAQUE, OPAQUE),  # noqa: UP031
            pprint.pformat([OPAQUE, {"key": OPAQUE}]),
            pprint.pformat(Holder(OPAQUE)),
            repr(asdict(Holder(OPAQUE))),
        ],
    )
    def test_a1_text_of_an_opaque_object_does_not_show_the_secret(self, text):
        assert "<secret>" in text
        assert SECRET not in text

    def test_a1_opaque_object_has_no_dictionary_of_attributes(self):
        with pytest.raises(TypeError):
            vars(OPAQUE)

    @pytest.mark.parametrize("copied", [copy.copy(OPAQUE), copy.deepcopy(OPAQUE), copy.deepcopy([OPAQUE])[0]])
    def test_a1_copy_of_an_opaque_object_is_the_object_itself(self, copied):
        assert copied is OPAQUE

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a1_opaque_object_cannot_be_pickled(self, protocol):
        with pytest.raises(TypeError, match="can't be pickled"):
            pickle.dumps(OPAQUE, protocol)

    def test_a1_opaque_object_has_no_state_to_read(self):
        with pytest.raises(TypeError, match="can't be pickled"):
            OPAQUE.__getstate__()

    def test_a1_opaque_object_cannot_be_written_as_json(self):
        with pytest.raises(TypeError):
            json.dumps(OPAQUE)

    @pytest.mark.parametrize("read", [list, dict, len, bytes, lambda secret: secret[0]])
    def test_a1_opaque_object_is_not_a_collection(self, read):
        with pytest.raises(TypeError):
            read(OPAQUE)


@concealed
def reveal(opaque: Opaque[str], error: Any = None) -> str:
    revealed: str = opaque.reveal()
    if error is None:
        return revealed
    try:
        return {}[revealed]
    except KeyError:
        # The KeyError, whose text is the secret, becomes the context of this exception.
        raise error(revealed) if isinstance(error, type) else error  # noqa: B904


def raised_by(error: Any) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        reveal(OPAQUE, error)
    return caught.value


class TestAnOpaqueText:
    def test_opaque_texts_are_equal_if_their_strings_are_equal(self):
        assert OpaqueText("ä") == OpaqueText("ä")
        assert hash(OpaqueText("ä")) == hash(OpaqueText("ä"))
        assert OpaqueText("ä") != OpaqueText("a")
        assert OpaqueText("a") != "a"

    def test_a1_opaque_text_does_not_show_the_secret(self):
        assert {repr(OpaqueText("ä")), str(OpaqueText("ä"))} == {"<secret>"}


class TestAConcealedFunction:
    def test_concealed_function_returns_its_result(self):
        assert reveal(OPAQUE) == SECRET

    @pytest.mark.parametrize("error", [KeyRefused("a reason"), SystemExit(1), ValueError, MemoryError, JWException])
    def test_k14_exception_of_a_concealed_function_contains_no_frame_of_the_function_and_no_earlier_exception(
        self, error
    ):
        caught = raised_by(error)

        frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(caught.__traceback__)]
        assert frames == ["raised_by", "wrapper"]
        assert (caught.__cause__, caught.__context__) == (None, None)
        assert SECRET not in read_exception(caught)

    @pytest.mark.parametrize("error", [KeyRefused("a reason"), SystemExit(1)])
    def test_concealed_function_raises_the_same_error_if_the_text_contains_no_secret(self, error):
        assert raised_by(error) is error

    def test_k14_unexpected_error_of_a_concealed_function_is_described_without_its_text(self):
        caught = raised_by(ValueError)

        assert isinstance(caught, UnexpectedError)
        assert caught.code == "fault"
        assert re.fullmatch(r"unexpected ValueError in reveal \(line \d+ of test_opaque\.py\)", caught.detail)

    def test_k14_arguments_of_a_concealed_function_are_in_no_frame_of_its_exception(self):
        @concealed
        def refuse(text: str) -> None:
            raise KeyRefused("a reason")

        with pytest.raises(KeyRefused) as caught:
            refuse("-".join(["the", "secret"]))

        assert SECRET not in read_exception(caught.value)
