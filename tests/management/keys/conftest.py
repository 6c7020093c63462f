"""Fixtures for the tests of `instaccess_keys`: a stopped clock, and files that contain a key."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import time_machine
from jwcrypto.jwk import JWK

from instaccess.trust import material
from tests.support import key_texts

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def clock() -> Any:
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


@pytest.fixture
def pair(rsa_pool: Any) -> JWK:
    return rsa_pool.take()


@pytest.fixture
def files(tmp_path: Path, pair: JWK) -> dict[str, str]:
    """Write a key to a file in each format, with and without the private key. Returns the paths by file name."""
    paths = {}
    for name, file_format, private in (
        ("public.pem", "pem", False),
        ("private.pem", "pem", True),
        ("public.jwk", "jwk", False),
        ("private.jwk", "jwk", True),
    ):
        path = tmp_path / name
        make_text = key_texts.private_text if private else material.to_text
        path.write_text(make_text(pair, file_format=file_format))
        paths[name] = str(path)
    return paths
