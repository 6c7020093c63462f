"""Test of the command that `make screenshots` runs, with a small number of issued tokens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.services


class TestMakeScreenshots:
    def test_make_screenshots_stores_each_page_in_each_color_scheme_and_window_size(self, tmp_path: Path) -> None:
        album, readme = tmp_path / "album", tmp_path / "readme"
        readme.mkdir()
        command = [sys.executable, "-m", "tests.admin.browser.screenshots", str(album), "--readme", str(readme)]
        done = subprocess.run(
            [*command, "--rows", "300"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        screenshots = {path.stem for path in album.iterdir()}
        pages = {name.rsplit("-", 2)[0] for name in screenshots}
        assert {"keys", "issued-tokens", "inspector-accepted"} <= pages
        assert screenshots == {f"{p}-{s}-{w}" for p in pages for s in ("light", "dark") for w in (390, 1280)}
        assert sorted(path.name for path in readme.iterdir()) == ["issued-tokens.png", "keys.png"]
