"""The German translation: complete, nothing left over, and compiled from what is in the repository."""

from __future__ import annotations

import ast
import gettext
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from django.utils import translation

from tests.support.paths import ROOT

PACKAGE = ROOT / "instaccess"
PO = PACKAGE / "locale" / "de" / "LC_MESSAGES" / "django.po"
CALLS = {"_": 1, "gettext": 1, "gettext_lazy": 1, "ngettext": 2, "ngettext_lazy": 2}
WITH_CONTEXT = {"pgettext", "pgettext_lazy"}
TAG = re.compile(r'{%\s*translate "([^"]+)"|{%\s*blocktranslate[^%]*%}(.*?){%\s*endblocktranslate\s*%}', re.DOTALL)


def in_python(path: Path) -> set[str]:
    """The texts that a module has translated, plurals too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        count = 2 if node.func.id in WITH_CONTEXT else CALLS.get(node.func.id, 0)
        texts = [argument.value for argument in node.args[:count] if isinstance(argument, ast.Constant)]
        assert len(texts) == count, f"{path.name}:{node.lineno} translates no plain text"
        found |= {in_context(*texts)} if node.func.id in WITH_CONTEXT else set(texts)
    return found


def in_context(context: str, text: str) -> str:
    """As .mo files have it."""
    return f"{context}\x04{text}"


def in_template(path: Path) -> set[str]:
    """The texts that a template has translated, plurals too."""
    found = set()
    for plain, block in TAG.findall(path.read_text(encoding="utf-8")):
        for part in re.split(r"{%\s*plural\s*%}", block):
            text = plain.replace("%", "%%") or re.sub(r"{{\s*(\w+)\s*}}", r"%(\1)s", " ".join(part.split()))
            found.add(text)
    return found


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"%\(\w+\)\w", text))


class Entry(NamedTuple):
    """A text, after its context where it has one; its plural where it has one, and the translations of both."""

    text: str
    plural: str
    translations: list[str]


def catalogue() -> list[Entry]:
    """The .po file: entries divided by empty lines, each some keywords with texts, perhaps over several lines."""
    entries = []
    for block in re.split(r"\n{2,}", PO.read_text(encoding="utf-8").strip()):
        fields: dict[str, str] = {}
        keyword = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            before, quote, text = line.partition('"')
            keyword = before.strip() or keyword
            fields[keyword] = fields.get(keyword, "") + ast.literal_eval(quote + text)
        translations = [text for keyword, text in sorted(fields.items()) if keyword.startswith("msgstr")]
        text = in_context(fields["msgctxt"], fields["msgid"]) if "msgctxt" in fields else fields["msgid"]
        entries.append(Entry(text, fields.get("msgid_plural", ""), translations))
    return entries[1:]  # the first is the file's heading


ENTRIES = catalogue()


class TestTheGermanTranslation:
    def test_has_every_text_and_no_other(self):
        texts = set().union(*map(in_python, PACKAGE.rglob("*.py")), *map(in_template, PACKAGE.rglob("*.html")))

        assert {text for entry in ENTRIES for text in (entry.text, entry.plural) if text} == texts

    @pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.text)
    def test_says_something_with_the_same_placeholders(self, entry):
        assert len(entry.translations) == (2 if entry.plural else 1)
        for translated in entry.translations:
            assert translated
            assert placeholders(translated) == placeholders(entry.plural or entry.text)

    def test_has_no_guesses_of_the_tools_left(self):
        assert "fuzzy" not in PO.read_text(encoding="utf-8")

    def test_is_compiled_as_it_is(self):
        with PO.with_suffix(".mo").open("rb") as file:
            compiled = gettext.GNUTranslations(file)

        for text, plural, translations in ENTRIES:
            if plural:
                assert [compiled.ngettext(text, plural, count) for count in (1, 2)] == translations
            else:
                assert compiled.gettext(text) == translations[0]

    def test_is_what_a_german_reader_sees(self):
        from instaccess.models import IssuedToken

        with translation.override("de"):
            assert str(IssuedToken._meta.verbose_name_plural) == "ausgestellte Token"
