"""Tests of case A9: the admin pages of this app in Chromium with four themes, in light and dark mode."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.admin.browser.themes import THEMES
from tests.support.paths import ROOT

pytestmark = pytest.mark.services


@pytest.mark.parametrize("theme", THEMES)
def test_a9_pages_are_usable_and_their_figures_are_legible_with_a_theme(theme):
    """Run themes.py, which opens the main pages, measures the contrast of texts and bars, and clicks buttons."""
    command = [sys.executable, "-m", "tests.admin.browser.themes", theme]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)

    assert (done.returncode, done.stdout) == (0, "[]"), done.stderr
