"""Tests of the measurements of keys for monitoring, with past keys and with rows of an attacker."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from instaccess.keys import lifecycle, measure
from instaccess.models import Key
from tests.keys.helpers import DAY, ENC, SIG, START, public_pem
from tests.support import key_texts
from tests.support.stored_keys import insert_with_sql

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("started")]

ACTIVATED, DUE = "instaccess_key_activated_timestamp_seconds", "instaccess_next_rotation_timestamp_seconds"


def measured(name: str) -> list[tuple[dict[str, str], float]]:
    """Return the labels and the values of all samples with this name, sorted by use."""
    samples = [(dict(sample.labels), sample.value) for sample in measure() if sample.name == name]
    return sorted(samples, key=lambda sample: sample[0]["use"])


def seconds(after: timedelta) -> float:
    return (START + after).timestamp()


class TestKeysAfterRotations:
    def test_measurements_contain_the_activation_and_the_next_rotation_of_current_keys_only(self, clock):
        for _ in range(2):
            clock.shift(DAY)
            lifecycle.rotate(SIG, force=True)

        assert measured(ACTIVATED) == [({"use": "enc"}, seconds(0 * DAY)), ({"use": "sig"}, seconds(2 * DAY))]
        assert measured(DUE) == [({"use": "enc"}, seconds(30 * DAY)), ({"use": "sig"}, seconds(32 * DAY))]

    def test_measurements_count_the_keys_of_each_use_and_status(self):
        lifecycle.rotate(SIG, force=True)

        assert [(labels["use"], labels["status"], count) for labels, count in measured("instaccess_keys")] == [
            ("enc", "current", 1),
            ("enc", "future", 1),
            ("sig", "current", 1),
            ("sig", "future", 1),
            ("sig", "past", 1),
        ]


class TestThePublicKeyOfAGateway:
    def test_measurements_contain_no_due_time_if_no_key_can_replace_the_current_key(self, rsa_pool):
        lifecycle.activate(key_texts.import_key(public_pem(rsa_pool), use=ENC).kid)

        assert [labels["use"] for labels, _ in measured(DUE)] == ["sig"]
        assert [labels["use"] for labels, _ in measured(ACTIVATED)] == ["enc", "sig"]


class TestACurrentKeyThatAnAttackerInserted:
    def test_measurements_omit_a_current_key_without_a_time_of_activation(self, rsa_pool: Any):
        Key.objects.filter(use=ENC).delete()
        insert_with_sql(rsa_pool.take(ENC), use=ENC, status="current")

        assert [labels["use"] for labels, _ in measured(ACTIVATED)] == ["sig"]
        assert [labels["use"] for labels, _ in measured(DUE)] == ["sig"]
