"""Tests that each translation is complete, has no unused entries, and is compiled from the .po file."""

from __future__ import annotations

import ast
import gettext
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from django.utils import translation

from instaccess.models import IssuedToken
from tests.support.paths import ROOT

PACKAGE = ROOT / "instaccess"
LOCALE = PACKAGE / "locale"
LANGUAGES = sorted(folder.name for folder in LOCALE.iterdir() if folder.is_dir())
CALLS = {"_": 1, "gettext": 1, "gettext_lazy": 1, "ngettext": 2, "ngettext_lazy": 2}
WITH_CONTEXT = {"pgettext", "pgettext_lazy"}
TAG = re.compile(
    r'{%\s*translate "([^"]+)"(?: context "([^"]+)")?|{%\s*blocktranslate[^%]*%}(.*?){%\s*endblocktranslate\s*%}',
    re.DOTALL,
)

# The expected name of the model of issued tokens in each language.
ISSUED_TOKENS = {"de": "ausgestellte Token", "es": "tokens emitidos", "fr": "jetons émis"}

# These texts are the same in English and in all languages except French, which has a space before a colon.
COLONS = {"%(heading)s: %(count)s", "<strong>%(label)s:</strong> %(text)s"}

# Each of these texts is the same in English and in its language, and therefore doesn't count as untranslated.
SAME_IN_ENGLISH = {
    "de": COLONS | {"Claim", "Claims", "Header", "InstAccess", "Status", "Token"},
    "es": COLONS | {"Actor", "Claim", "Claims", "Error", "InstAccess", "Token", "actor", "no", "shard"},
    "fr": {
        "Application",
        "Claim",
        "Claims",
        "Description",
        "InstAccess",
        "Signature",
        "application",
        "shard",
    },
}


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
    for plain, context, block in TAG.findall(path.read_text(encoding="utf-8")):
        for part in re.split(r"{%\s*plural\s*%}", block):
            text = plain.replace("%", "%%") or re.sub(r"{{\s*(\w+)\s*}}", r"%(\1)s", " ".join(part.split()))
            result.add(with_context(context, text) if context else text)
    return result


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"%\(\w+\)\w", text))


def path_of_catalogue(language: str) -> Path:
    """Return the path of the .po file of a language."""
    return LOCALE / language / "LC_MESSAGES" / "django.po"


class Entry(NamedTuple):
    """An entry of a .po file: the text with its context, the plural (or an empty string), and all translations."""

    text: str
    plural: str
    translations: list[str]


class Catalogue(NamedTuple):
    """The content of a .po file: the number of plural forms in the header, and the entries without the header."""

    plural_forms: int
    entries: list[Entry]


def read_catalogue(language: str) -> Catalogue:
    """Parse the .po file of a language.

    Empty lines separate entries. An entry consists of keywords with strings, which can continue on further lines.
    """
    entries = []
    for block in re.split(r"\n{2,}", path_of_catalogue(language).read_text(encoding="utf-8").strip()):
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
    [header] = entries.pop(0).translations
    forms = re.search(r"^Plural-Forms: nplurals=(\d);", header, re.MULTILINE)
    assert forms, f"The catalogue {language} has no header Plural-Forms"
    return Catalogue(int(forms[1]), entries)


CATALOGUES = {language: read_catalogue(language) for language in LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
class TestTheTranslation:
    def test_translation_contains_exactly_the_texts_of_the_package(self, language):
        texts = set().union(
            *map(texts_of_module, PACKAGE.rglob("*.py")), *map(texts_of_template, PACKAGE.rglob("*.html"))
        )

        entries = CATALOGUES[language].entries
        assert {text for entry in entries for text in (entry.text, entry.plural) if text} == texts

    def test_translation_differs_from_english_except_for_listed_words(self, language):
        same = {entry.text for entry in CATALOGUES[language].entries if entry.text in entry.translations}

        assert same == SAME_IN_ENGLISH[language]

    def test_translation_has_no_fuzzy_entries(self, language):
        assert "fuzzy" not in path_of_catalogue(language).read_text(encoding="utf-8")

    def test_compiled_translation_matches_the_po_file(self, language):
        with path_of_catalogue(language).with_suffix(".mo").open("rb") as file:
            compiled = gettext.GNUTranslations(file)

        for text, plural, translations in CATALOGUES[language].entries:
            if plural:
                # Romance languages can have a third form, for multiples of a million, between the two other forms.
                selected = [compiled.ngettext(text, plural, count) for count in (1, 1_000_000, 2)]
                assert [selected[0], selected[-1]] == [translations[0], translations[-1]]
                assert set(selected) == set(translations)
            else:
                assert compiled.gettext(text) == translations[0]

    def test_django_selects_the_singular_for_one_and_the_plural_for_two(self, language):
        # Django's own catalogue of a language can have other plural forms than the package's catalogue.
        with translation.override(language):
            for text, plural, translations in CATALOGUES[language].entries:
                if plural:
                    selected = [translation.ngettext(text, plural, count) for count in (1, 2)]
                    assert selected == [translations[0], translations[-1]]

    def test_name_of_the_model_of_issued_tokens_is_translated(self, language):
        with translation.override(language):
            assert str(IssuedToken._meta.verbose_name_plural) == ISSUED_TOKENS[language]


@pytest.mark.parametrize(
    ("language", "entry"),
    [
        pytest.param(language, entry, id=f"{language}-{entry.text}")
        for language, catalogue in CATALOGUES.items()
        for entry in catalogue.entries
    ],
)
class TestTheTranslationOfEachText:
    def test_translation_contains_the_placeholders_of_the_english_text(self, language, entry):
        assert len(entry.translations) == (CATALOGUES[language].plural_forms if entry.plural else 1)
        for translated in entry.translations:
            assert translated
            assert placeholders(translated) == placeholders(entry.plural or entry.text)
