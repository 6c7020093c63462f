"""Tests that the German translation is complete, has no unused entries, and is compiled from the .po file."""

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


def texts_of_module(path: Path) -> set[str]:
    """Return the translatable texts of a module, including plurals."""
    result = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        count = 2 if node.func.id in WITH_CONTEXT else CALLS.get(node.func.id, 0)
        texts = [argument.value for argument in node.args[:count] if isinstance(argument, ast.Constant)]
        assert len(texts) == count, f"{path.name}:{node.lineno} translates no plain text"
        result |= {with_context(*texts)} if node.func.id in WITH_CONTEXT else set(texts)
    return result


def with_context(context: str, text: str) -> str:
    """Return the key of a text with a context, as in .mo files."""
    return f"{context}\x04{text}"


def texts_of_template(path: Path) -> set[str]:
    """Return the translatable texts of a template, including plurals."""
    result = set()
    for plain, block in TAG.findall(path.read_text(encoding="utf-8")):
        for part in re.split(r"{%\s*plural\s*%}", block):
            text = plain.replace("%", "%%") or re.sub(r"{{\s*(\w+)\s*}}", r"%(\1)s", " ".join(part.split()))
            result.add(text)
    return result


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"%\(\w+\)\w", text))


class Entry(NamedTuple):
    """An entry of the .po file: the text with its context, the plural (or an empty string), and all translations."""

    text: str
    plural: str
    translations: list[str]


def read_catalogue() -> list[Entry]:
    """Parse the .po file, and return its entries.

    Empty lines separate entries. An entry consists of keywords with strings, which may continue on further lines.
    """
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
        text = with_context(fields["msgctxt"], fields["msgid"]) if "msgctxt" in fields else fields["msgid"]
        entries.append(Entry(text, fields.get("msgid_plural", ""), translations))
    return entries[1:]  # The first entry is the header of the file.


ENTRIES = read_catalogue()


class TestTheGermanTranslation:
    def test_german_translation_contains_exactly_the_texts_of_the_package(self):
        texts = set().union(
            *map(texts_of_module, PACKAGE.rglob("*.py")), *map(texts_of_template, PACKAGE.rglob("*.html"))
        )

        assert {text for entry in ENTRIES for text in (entry.text, entry.plural) if text} == texts

    @pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.text)
    def test_german_translation_of_each_text_contains_the_same_placeholders(self, entry):
        assert len(entry.translations) == (2 if entry.plural else 1)
        for translated in entry.translations:
            assert translated
            assert placeholders(translated) == placeholders(entry.plural or entry.text)

    def test_german_translation_has_no_fuzzy_entries(self):
        assert "fuzzy" not in PO.read_text(encoding="utf-8")

    def test_compiled_german_translation_matches_the_po_file(self):
        with PO.with_suffix(".mo").open("rb") as file:
            compiled = gettext.GNUTranslations(file)

        for text, plural, translations in ENTRIES:
            if plural:
                assert [compiled.ngettext(text, plural, count) for count in (1, 2)] == translations
            else:
                assert compiled.gettext(text) == translations[0]

    def test_model_of_issued_tokens_has_a_german_name_in_german(self):
        from instaccess.models import IssuedToken

        with translation.override("de"):
            assert str(IssuedToken._meta.verbose_name_plural) == "ausgestellte Token"
