"""Tests of the extensions for drf-spectacular, which are imported only if the project uses drf-spectacular."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from instaccess import web

MODULE = "extensions_of_a_view"


@pytest.fixture(autouse=True)
def extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create an importable module, and restore `sys.modules` after the test."""
    (tmp_path / f"{MODULE}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, MODULE, None)  # type: ignore[arg-type]
    del sys.modules[MODULE]


class TestLoadOpenapi:
    def test_extensions_are_imported_if_the_project_uses_drf_spectacular(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "drf_spectacular", ModuleType("drf_spectacular"))
        web.load_openapi(MODULE)

        assert MODULE in sys.modules

    def test_extensions_are_not_imported_if_the_project_does_not_use_drf_spectacular(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "drf_spectacular", None)  # type: ignore[arg-type]
        web.load_openapi(MODULE)

        assert MODULE not in sys.modules
