"""Opaque objects never print, copy or pickle the secret that they contain."""

from __future__ import annotations

import copy
import json
import pickle
import pprint
from dataclasses import asdict, dataclass

import pytest

from instaccess.opaque import Opaque

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
    def test_a1_text_of_an_opaque_object_is_fixed(self, text):
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
