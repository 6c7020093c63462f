"""Tests of the key page in the admin: the timeline, its table, and the problems of keys."""

from __future__ import annotations

import re
import secrets
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from instaccess.conf import conf
from instaccess.keys import lifecycle, queries
from instaccess.models import IssuedToken, Key, RefusalCount
from tests.admin.keys.helpers import ENC, LIST, SIG, START, key_of, page_text, revoke_url, rows
from tests.support.stored_keys import write

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _stopped_clock(clock: Any) -> None:
    """Stop the clock at `START`."""


@pytest.mark.usefixtures("initial_keys")
class TestALiveToken:
    """Tests of the number of live tokens that the pages show for a key."""

    def test_revocation_page_counts_no_expired_tokens_revoked_tokens_or_tokens_of_other_keys(
        self, operator_client, issue, clock
    ):
        issue()
        clock.shift(conf.lifetime)
        operator_client.force_login(get_user_model().objects.get(username="grace"))
        issue()
        revoked = issue()
        IssuedToken.objects.filter(pk=revoked.pk).update(revoked_at=timezone.now())
        lifecycle.rotate(SIG, force=True)
        issue()

        assert "live tokens of this key (1)" in page_text(operator_client.post(revoke_url(key_of(SIG, "past").kid)))
        assert "live tokens of this key (2)" in page_text(
            operator_client.post(revoke_url(queries.current_key(queries.stored_keys(), ENC).kid))
        )


def svg_of(text: str) -> str:
    return text[text.index("<svg class") : text.index("</svg>\n", text.index("instaccess-now-label"))]


class TestTheKeyPageWithoutKeys:
    def test_k5_key_page_names_instaccess_init_and_shows_no_timeline_if_there_are_no_keys(self, operator_client):
        page = page_text(operator_client.get(LIST))

        assert "There are no keys yet" in page
        assert "<code>python manage.py instaccess_init</code>" in page
        assert "<svg class" not in page


@pytest.mark.usefixtures("initial_keys")
class TestTheKeyPage:
    def test_key_page_shows_every_key_in_the_timeline_and_in_the_table(self, operator_client):
        page = page_text(operator_client.get(LIST))
        table = page.partition('<div class="results instaccess-words"')[2]

        for key in Key.objects.all():
            assert key.kid[:8] in svg_of(page)
            assert key.kid[:8] in table
        assert "Current since 2026-11-23 12:00 UTC. Next rotation due at 2026-12-23 12:00 UTC" in table
        assert "Published since 2026-11-23 12:00 UTC. Becomes current at 2026-12-23 12:00 UTC" in table

    def test_key_timeline_has_a_title_a_description_and_a_mark_for_the_current_time(self, operator_client):
        drawing = svg_of(page_text(operator_client.get(LIST)))

        assert 'role="img"' in drawing
        assert 'aria-labelledby="instaccess-timeline-title instaccess-timeline-desc"' in drawing
        assert "<title id=" in drawing
        assert "The table below contains the same information." in drawing
        assert ">now</text>" in drawing

    def test_key_timeline_distinguishes_phases_by_labels_and_patterns(self, operator_client):
        page = svg_of(page_text(operator_client.get(LIST)))

        assert "· current" in page
        assert "· future" in page
        assert "instaccess-planned" in page
        for phase in ("future", "past", "current"):
            assert f'<pattern id="instaccess-pattern-{phase}"' in page

    def test_key_page_shows_the_number_of_live_tokens_of_each_key(self, operator_client, issue):
        issue()
        lifecycle.rotate(SIG, force=True)
        issue()
        page = page_text(operator_client.get(LIST))
        lines = {line.short: line.live for _, rows in page_context(operator_client)["groups"] for _, line in rows}

        assert lines == {
            key_of(SIG, "past").kid[:8]: 1,
            key_of(SIG, "current").kid[:8]: 1,
            key_of(SIG, "future").kid[:8]: 0,
            key_of(ENC, "current").kid[:8]: 2,
        }
        assert "current · 2 live tokens" in page
        assert "past · 1 live token<" in page

    def test_key_page_links_each_key_to_its_public_key(self, operator_client):
        page = page_text(operator_client.get(LIST))
        for key in Key.objects.all():
            url = reverse("admin:instaccess_key_change", args=[key.pk])
            assert f'href="{url}#public-pem"' in page
            assert 'id="public-pem"' in page_text(operator_client.get(url))

    def test_key_page_omits_old_keys_from_the_timeline_and_counts_the_omitted_keys(
        self, operator_client, operator, clock
    ):
        lifecycle.rotate(SIG, force=True)
        gone = key_of(SIG, "past").kid
        clock.shift(timedelta(days=29))
        lifecycle.rotate(SIG)
        operator_client.force_login(operator)
        page = page_text(operator_client.get(LIST))

        assert gone[:8] not in svg_of(page)
        assert "1 old key is not shown in the timeline. The list of all keys below contains the key." in page
        assert gone in page

    def test_key_page_draws_at_most_twelve_keys_per_use_and_counts_the_other_keys(self, operator_client):
        write(
            Key(kid=f"{n:08}", use=SIG, status="past", public_jwk={}, activated_at=START, retired_at=START)
            for n in range(20)
        )
        page = page_text(operator_client.get(LIST))

        assert svg_of(page).count('class="instaccess-kid"') == 13
        assert "10 more keys are not shown in the timeline. The list of all keys below contains these keys." in page

    def test_key_timeline_contains_numbers_with_a_decimal_point_in_german(self, operator_client, settings):
        settings.LANGUAGE_CODE, settings.USE_THOUSAND_SEPARATOR = "de", True
        drawing = svg_of(page_text(operator_client.get(LIST)))

        assert re.search(r'x="\d+\.\d+%"', drawing)
        assert not re.search(r'"\d+,\d+%?"', drawing)

    def test_key_page_has_no_inline_script_or_style(self, operator_client):
        page = page_text(operator_client.get(LIST))
        key_page = page_text(
            operator_client.get(reverse("admin:instaccess_key_change", args=[Key.objects.first().pk]))
        )
        for text in (page, key_page):
            main = text[text.index("<main") : text.index("</main>")]
            assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:|data:", main)
            assert not re.search(r"<script(?![^>]*\ssrc=)", main)
        assert "instaccess/timeline.css" in page
        assert "instaccess/copy.js" in key_page

    def test_key_page_runs_the_same_number_of_queries_for_many_keys_as_for_a_few_keys(self, operator_client, issue):
        issue()
        with CaptureQueriesContext(connection) as few:
            operator_client.get(LIST)
        for use in (SIG, ENC, SIG, ENC):
            lifecycle.rotate(use, force=True)
            issue()
        with CaptureQueriesContext(connection) as more:
            operator_client.get(LIST)

        assert len(few) == len(more)

    def test_key_page_changes_no_key_even_if_rotation_is_overdue(self, operator_client, clock):
        clock.shift(timedelta(days=100))
        operator_client.force_login(get_user_model().objects.get(username="grace"))
        before = rows()
        operator_client.get(LIST)

        assert rows() == before


def page_context(client: Any) -> Any:
    return client.get(LIST).context


def warned(client: Any) -> list[str]:
    return [finding.code for _, _, finding in page_context(client)["problems"]]


@pytest.mark.usefixtures("initial_keys")
class TestProblemsOnTheKeyPage:
    @pytest.fixture(autouse=True)
    def kek(self, settings: Any) -> None:
        """Configure a separate key-encryption key, as in a healthy deployment."""
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32), "SECRET_KEY"]}

    def test_key_page_shows_no_problem_after_instaccess_init(self, operator_client):
        assert warned(operator_client) == []
        assert "Nothing. No key is overdue, missing or unsafe." in page_text(operator_client.get(LIST))

    def test_key_page_shows_a_problem_with_its_severity_and_its_fix(self, operator_client, operator, clock):
        clock.shift(timedelta(days=39))
        operator_client.force_login(operator)
        page = page_text(operator_client.get(LIST))

        assert f"<strong>Warning:</strong> The signing key {key_of(SIG, 'current').kid[:8]} is overdue" in page
        assert "by 9 days." in page
        assert "<code>python manage.py instaccess_keys rotate --use sig</code>" in page

    @pytest.mark.parametrize("use", [SIG, ENC])
    def test_k8_key_page_reports_a_use_without_a_current_key(self, use, operator_client):
        Key.objects.filter(use=use, status="current").delete()

        assert warned(operator_client)[0] == "no_current"

    def test_o6_key_page_reports_a_missing_key_encryption_key(self, operator_client, settings):
        settings.INSTACCESS = {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}

        assert warned(operator_client) == ["kek_missing"]

    @pytest.mark.parametrize("sealed", ["junk", "a.b.c.d.e", "eyJ" * 1000, "\N{PILE OF POO}", "swapped"])
    @pytest.mark.parametrize("public", [None, [], {"kty": "RSA", "n": 1}])
    def test_k7_key_page_answers_200_and_reports_a_modified_row(self, sealed, public, operator_client):
        key, other = key_of(SIG, "future"), key_of(SIG, "current")
        changes = {"sealed_private_jwk": other.sealed_private_jwk if sealed == "swapped" else sealed}
        if public is not None:
            changes["public_jwk"] = public
        Key.objects.filter(pk=key.pk).update(**changes)
        broken = "seal_broken" if sealed == "swapped" else "kek_missing"

        # A row with a modified public key isn't a future signing key, so the page also reports that the future
        # signing key is missing.
        expected = [broken] if public is None else ["key_altered", "no_future_signing"]
        assert warned(operator_client) == expected
        assert other.sealed_private_jwk not in page_text(operator_client.get(LIST))

    @pytest.mark.parametrize("changes", [{"activated_at": None}, {"status": "odd"}, {"revoked_at": START}])
    def test_key_page_answers_200_if_rows_of_keys_contain_unusual_values(self, changes, operator_client):
        Key.objects.filter(use=SIG, status="current").update(**changes)

        assert operator_client.get(LIST).status_code == 200

    @pytest.mark.parametrize("bad", [{"KEY_ENCRYPTION_KEYS": []}, {"KEY_ROTATION_DAYS": "thirty"}, {"LEEWAY": -1}])
    def test_key_page_reports_an_invalid_setting_and_no_other_problem(self, bad, operator_client, settings):
        settings.INSTACCESS = bad

        assert warned(operator_client) == ["bad_setting"]
        assert "<svg class" not in page_text(operator_client.get(LIST))

    def test_key_page_reports_a_refusal_spike(self, operator_client):
        hour = START.replace(minute=0, second=0, microsecond=0)
        RefusalCount.objects.create(hour=hour, role="gateway", reason="bad_signature", count=412)
        page = page_text(operator_client.get(LIST))

        assert warned(operator_client) == ["unusual_refusals"]
        assert "Within one hour, the gateway refused 412 requests with the reason “bad_signature”" in page
