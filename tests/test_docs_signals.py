"""Tests that compare docs/signals.md with the code, and run the receivers of docs/signals.md."""

from __future__ import annotations

import logging
import sys
import types
from typing import Any

import pytest

from instaccess import audit, keys, signals
from instaccess.audit import revocation
from instaccess.conf import conf
from instaccess.models import Key
from tests.support import readme
from tests.support.receiving import connected

TEXT = readme.page("signals.md")
CONFIG, RECEIVERS = (snippet.code for snippet in readme.snippets(TEXT) if snippet.language == "python")
FACTS = {
    "token_issued": signals.TokenIssued,
    "token_refused": signals.TokenRefused,
    "tokens_revoked": signals.TokensRevoked,
    "key_changed": signals.KeyChanged,
}
SENDERS = {
    "token_issued": "IssuedToken",
    "token_refused": "None",
    "tokens_revoked": "IssuedToken",
    "key_changed": "Key",
}


class TestTheTablesOfSignals:
    ROWS = readme.tables(TEXT)[0]

    def test_page_of_signals_lists_each_signal_with_its_sender_and_its_logger(self):
        documented = {readme.code(name)[0]: (readme.code(s)[0], readme.code(log)[0]) for name, _, s, log in self.ROWS}

        assert documented == {
            name: (SENDERS[name], vars(signals)[name]._logger.name)
            for name, value in vars(signals).items()
            if isinstance(value, signals.FactSignal)
        }

    @pytest.mark.parametrize("name", FACTS)
    def test_table_of_facts_lists_each_fact_in_the_order_of_the_typed_dictionary(self, name):
        section = TEXT.partition(f"\n### {name}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
        documented = [fact for row in readme.tables(section)[0] for fact in readme.code(row[0])]

        assert documented == list(FACTS[name].__annotations__)

    def test_table_of_changes_lists_each_kind_of_change_of_a_key(self):
        rows = readme.tables(TEXT.partition("\n### key_changed\n")[2])[1]

        assert [readme.code(change)[0] for change, _ in rows] == list(signals.KeyChange)

    def test_documented_size_of_a_batch_is_the_size_in_the_code(self):
        assert f"each batch of up to {revocation.BATCH} tokens" in TEXT


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("initial_keys")
class TestTheDocumentedReceivers:
    @pytest.fixture
    def receivers(self) -> dict[str, Any]:
        names: dict[str, Any] = {}
        exec(RECEIVERS, names)
        return names

    def test_documented_receiver_logs_a_revocation(self, receivers, row, caplog):
        caplog.set_level(logging.INFO)
        row()

        with connected(signals.tokens_revoked, receivers["report_revocation"]):
            audit.revoke(audit.live_tokens(), keks=conf.key_encryption_keys, reason="laptop lost", by="root")

        assert ("security", "1 tokens revoked by root: laptop lost") in {(r.name, r.message) for r in caplog.records}

    def test_documented_receiver_logs_a_new_key(self, receivers, caplog):
        caplog.set_level(logging.INFO)

        with connected(signals.key_changed, receivers["report_key"]):
            key = keys.generate(Key.Use.ENCRYPTION)

        assert f"key {key.kid} (enc) generated, now future" in caplog.text

    def test_documented_app_connects_the_documented_receivers(self, receivers, monkeypatch, caplog):
        package = types.ModuleType("security")
        package.receivers = types.ModuleType("security.receivers")  # type: ignore[attr-defined]
        vars(package.receivers).update(receivers)
        monkeypatch.setitem(sys.modules, "security", package)
        monkeypatch.setitem(sys.modules, "security.receivers", package.receivers)
        names: dict[str, Any] = {"__name__": "security.apps", "__package__": "security"}
        exec(CONFIG, names)

        names["SecurityConfig"].ready(None)
        try:
            keys.generate(Key.Use.ENCRYPTION)
        finally:
            signals.tokens_revoked.disconnect(receivers["report_revocation"])
            signals.key_changed.disconnect(receivers["report_key"])

        assert "(enc) generated, now future" in caplog.text
