"""Tests of the documentation site. The tests build the site as `make docs` does, and read its HTML."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

import pytest

from tests.support.paths import ROOT
from tests.support.processes import environment

IMAGES = sorted((ROOT / "docs/images").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "object": "data"}
"""For each element that loads a file, the attribute that contains the address of the file."""


class Page(HTMLParser):
    """The links, the loaded files, the anchors, and the images without an alternative text in an HTML page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.without_text: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if LOADED.get(tag) in values and values.get("rel") not in {"canonical", "next", "prev", "index", "search"}:
            self.loaded.append(values[LOADED[tag]])
        if tag == "img" and not values.get("alt"):
            self.without_text.append(values["src"])


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command of `make docs`, but write the site to another folder."""
    [line] = re.findall(r"^\t\$\(BIN\)/python (-m sphinx .+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    *arguments, target = shlex.split(line)
    assert target == "build/docs"
    return subprocess.run(
        [sys.executable, *arguments, "-d", str(folder / "doctrees"), str(folder / "site")],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


@pytest.mark.services
class TestTheSite:
    def test_site_contains_each_page_of_the_documentation(self, site):
        sources = {*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("examples/*/README.md")}

        for source in sources - {ROOT / "README.md"}:
            assert (site / source.relative_to(ROOT).with_suffix(".html")).exists()

    def test_links_of_each_page_lead_to_existing_files_and_anchors(self, pages, site):
        broken = []
        for path, page in pages.items():
            for link in {*page.links, *page.loaded}:
                address = urlsplit(link)
                if address.scheme:
                    continue
                target = (path.parent / unquote(address.path)).resolve() if address.path else path
                anchor = unquote(address.fragment)
                if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                    broken.append(f"{path.relative_to(site)}: {link}")

        assert broken == []

    def test_browser_loads_no_file_from_another_server(self, pages, site):
        addresses = [address for page in pages.values() for address in page.loaded]
        styles = "".join(path.read_text() for path in site.rglob("*.css"))

        assert [address for address in addresses if urlsplit(address).netloc] == []
        assert re.findall(r"url\(['\"]?(?:https?:)?//[^)]*\)|@import[^;]*//[^;]*;", styles) == []

    def test_each_image_of_the_site_has_an_alternative_text(self, pages):
        assert [image for page in pages.values() for image in page.without_text] == []

    def test_search_without_a_server_finds_the_page_of_a_setting(self, site):
        index = (site / "searchindex.js").read_text()

        assert index.startswith("Search.setIndex(")
        assert "docs/settings" in index
        assert "max_stal" in index.lower()

    def test_first_page_of_the_site_redirects_to_the_table_of_contents(self, site):
        assert 'url=docs/index.html"' in (site / "index.html").read_text()

    def test_site_contains_the_docstrings_of_the_python_api(self, site):
        text = (site / "docs/api.html").read_text()

        assert 'id="instaccess.service.InstAccessAuthentication"' in text
        assert 'id="instaccess.exceptions.InvalidToken"' in text


class TestTheDiagrams:
    @pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
    def test_diagram_has_a_title_and_a_description(self, path):
        root = ET.parse(path).getroot()
        texts = {
            each.get("id"): (each.text or "").strip() for each in root if each.tag in {f"{SVG}title", f"{SVG}desc"}
        }

        assert root.get("role") == "img"
        assert all(texts[name] for name in (root.get("aria-labelledby") or "").split())
        assert len(texts) == 2

    @pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
    def test_diagram_has_different_colors_in_dark_mode(self, path):
        text = path.read_text()
        light, dark = (
            dict(re.findall(r"(--[a-z]+): (#[0-9a-f]{6});", part))
            for part in text.partition("@media (prefers-color-scheme: dark)")[::2]
        )

        assert light.keys() == dark.keys()
        assert all(light[name] != dark[name] for name in light)

    @pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
    @pytest.mark.parametrize("mode", [0, 2], ids=["light", "dark"])
    def test_texts_of_a_diagram_have_enough_contrast(self, path, mode):
        """Compare with the contrast that WCAG 2 requires for text, 4.5 to 1."""
        part = path.read_text().partition("@media (prefers-color-scheme: dark)")[mode]
        colors = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", part))

        for text in ("ink", "quiet", "accent", "alarm"):
            for background in ("paper", "box"):
                assert contrast(colors[text], colors[background]) >= 4.5, (text, background)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colors (WCAG 2, "contrast ratio")."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
