"""Tests of the key timeline: the positions of bars and marks, for examples and for generated histories of keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from instaccess.admin.keys import timeline
from instaccess.admin.keys.overview import describe_lifecycle
from instaccess.admin.keys.timeline import Row, Timeline
from instaccess.keys import rotation
from instaccess.models import Key

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
TIMES = rotation.Times(interval=30 * DAY, lead=timedelta(seconds=303), retention=timedelta(seconds=3663))


def key(name: str, status: str, *, use: Key.Use = SIG, private: bool = True, **times: datetime) -> Key:
    """Build an unsaved key, because drawing the timeline needs no database."""
    return Key(
        kid=name,
        use=use,
        status=status,
        sealed_private_jwk="sealed" if private else "",
        **{"created_at": NOW - 10 * DAY, **times},
    )


def current(name: str = "current", *, since: datetime = NOW - 10 * DAY, **columns: Any) -> Key:
    return key(name, "current", created_at=since - DAY, activated_at=since, **columns)


def past(name: str, since: datetime, until: datetime, **columns: Any) -> Key:
    return key(name, "past", created_at=since - DAY, activated_at=since, retired_at=until, **columns)


def draw(*keys: Key, now: datetime = NOW, total: int | None = None) -> Timeline:
    drawn = timeline.draw(keys, total=len(keys) if total is None else total, now=now, times=TIMES)
    assert drawn is not None
    return drawn


def rows(drawing: Timeline) -> dict[str, Row]:
    return {row.key.kid: row for group in drawing.groups for row in group.rows}


def phases(row: Row) -> list[tuple[str, bool]]:
    return [(bar.phase, bar.planned) for bar in row.bars]


class TestTheTimelineOfACurrentKey:
    def test_timeline_shows_the_future_current_and_past_phases_of_a_current_key(self):
        row = rows(draw(current(), key("next", "future")))["current"]

        assert phases(row) == [("future", False), ("current", False), ("current", True), ("past", True)]

    def test_timeline_shows_that_a_current_key_retires_when_rotation_is_due(self):
        keys = [current(), key("next", "future")]
        due = rotation.decide(keys, use=SIG, now=NOW, times=TIMES).next_due
        row = rows(draw(*keys))["current"]

        assert row.bars[-2].end == row.bars[-1].start == row.planned.retired_at == due
        assert row.bars[-1].end == due + TIMES.retention

    def test_timeline_ends_the_current_phase_at_the_current_time_if_rotation_is_overdue(self):
        drawing = draw(current(since=NOW - 40 * DAY), key("next", "future"))

        assert rows(drawing)["current"].bars[0].end == NOW
        assert rows(drawing)["next"].bars[-1].start == NOW + 30 * DAY

    def test_timeline_draws_an_external_current_key_until_the_end_of_the_timeline(self):
        drawing = draw(current(private=False, use=ENC))

        assert rows(drawing)["current"].bars[-1].end == drawing.end

    def test_timeline_shows_that_a_current_key_retires_even_if_no_next_key_exists_yet(self):
        drawing = draw(current())

        assert rows(drawing)["current"].planned.retired_at == NOW + 20 * DAY
        assert list(rows(drawing)) == ["current"]


class TestTheTimelineOfAFutureKey:
    def test_timeline_shows_that_a_future_key_becomes_current_when_the_current_key_retires(self):
        drawn = rows(draw(current(), key("next", "future")))

        assert phases(drawn["next"]) == [("future", False), ("future", True), ("current", True)]
        assert drawn["next"].bars[-1].start == drawn["current"].planned.retired_at

    def test_timeline_shows_only_a_future_phase_of_the_second_future_key(self):
        drawn = rows(draw(current(), key("next", "future"), key("later", "future", created_at=NOW - DAY)))

        assert drawn["later"].planned.activated_at is None
        assert {phase for phase, _ in phases(drawn["later"])} == {"future"}

    @pytest.mark.parametrize(
        "others", [[], [current()]], ids=["there is no current key", "its private key is not stored here"]
    )
    def test_timeline_shows_only_a_future_phase_of_a_key_that_cannot_become_current(self, others):
        drawing = draw(*others, key("waiting", "future", private=not others))

        assert {phase for phase, _ in phases(rows(drawing)["waiting"])} == {"future"}


class TestTheTimelineOfAPastKey:
    def test_timeline_shows_when_a_past_key_was_current_and_when_the_last_token_of_the_key_expired(self):
        row = rows(draw(current(), past("old", NOW - 14 * DAY, NOW - 10 * DAY)))["old"]

        assert phases(row) == [("future", False), ("current", False), ("past", False)]
        assert row.bars[-1].end == NOW - 10 * DAY + TIMES.retention
        assert row.revoked_x is None

    def test_timeline_continues_the_past_phase_until_the_last_token_of_the_key_expires(self):
        row = rows(draw(current(), past("old", NOW - 14 * DAY, NOW - HOUR / 2)))["old"]

        assert phases(row)[-2:] == [("past", False), ("past", True)]

    def test_timeline_ends_the_bars_of_a_revoked_key_with_a_mark_at_its_revocation(self):
        revoked = key(
            "bad", "revoked", created_at=NOW - 6 * DAY, activated_at=NOW - 5 * DAY, revoked_at=NOW - 2 * DAY
        )
        drawing = draw(current(), revoked)
        row = rows(drawing)["bad"]

        assert phases(row) == [("future", False), ("current", False)]
        assert row.revoked_x == pytest.approx(row.bars[-1].x + row.bars[-1].width, abs=0.002)

    def test_timeline_ends_the_past_phase_of_a_revoked_key_at_its_revocation(self):
        revoked = key(
            "bad",
            "revoked",
            created_at=NOW - 6 * DAY,
            activated_at=NOW - 5 * DAY,
            retired_at=NOW - DAY,
            revoked_at=NOW - DAY + HOUR / 2,
        )

        assert rows(draw(current(), revoked))["bad"].bars[-1].end == NOW - DAY + HOUR / 2

    def test_timeline_shows_no_planned_phase_of_a_revoked_key_without_a_revocation_time(self):
        revoked = key("bad", "revoked", activated_at=NOW - 5 * DAY)

        assert all(bar.end <= NOW for bar in rows(draw(current(), revoked))["bad"].bars)

    def test_timeline_counts_an_old_key_but_does_not_draw_the_key(self):
        drawing = draw(current(), past("old", NOW - 90 * DAY, NOW - 60 * DAY), total=7)

        assert list(rows(drawing)) == ["current"]
        assert drawing.gone == 6


class TestANarrowBarOfTheTimeline:
    def test_past_phase_of_an_hour_has_the_minimum_width_and_begins_when_the_key_retired(self):
        bar = rows(draw(current(), past("old", NOW - 14 * DAY, NOW - 10 * DAY)))["old"].bars[-1]

        assert bar.width < timeline.MIN_WIDTH
        assert (bar.drawn_x, bar.drawn_width) == (bar.x, timeline.MIN_WIDTH)

    def test_phases_of_a_new_installation_are_drawn_before_the_current_time(self):
        drawing = draw(current(since=NOW - HOUR / 60), key("next", "future", created_at=NOW - HOUR / 60))
        bar = rows(drawing)["current"].bars[1]

        assert (bar.phase, bar.planned, bar.drawn_width) == ("current", False, timeline.MIN_WIDTH)
        assert bar.drawn_x + bar.drawn_width == pytest.approx(drawing.now_x, abs=0.002)

    def test_wide_bar_is_drawn_at_its_exact_position(self):
        bar = rows(draw(current(), key("next", "future")))["current"].bars[2]

        assert (bar.drawn_x, bar.drawn_width) == (bar.x, bar.width)

    def test_revocation_is_marked_at_the_end_of_a_widened_bar(self):
        revoked = key(
            "bad", "revoked", created_at=NOW - 5 * DAY, activated_at=NOW - 5 * DAY, revoked_at=NOW - 5 * DAY + HOUR
        )
        row = rows(draw(current(), revoked))["bad"]

        assert row.revoked_x == pytest.approx(row.bars[-1].drawn_x + timeline.MIN_WIDTH, abs=0.002)


class TestATimelineWithoutKeys:
    @pytest.mark.parametrize("keys", [[], [past("old", NOW - 90 * DAY, NOW - 60 * DAY)]], ids=["none", "long gone"])
    def test_draw_returns_none_if_there_is_no_key_to_draw(self, keys):
        assert timeline.draw(keys, total=len(keys), now=NOW, times=TIMES) is None


class TestTheOrderOfKeysOnTheTimeline:
    def test_timeline_orders_keys_by_use_and_by_activation(self):
        drawing = draw(
            current("c"),
            key("f2", "future", created_at=NOW - DAY),
            key("f1", "future", created_at=NOW - 2 * DAY),
            past("p", NOW - 20 * DAY, NOW - 10 * DAY),
            current("e", use=ENC),
        )

        assert [(group.use, [row.key.kid for row in group.rows]) for group in drawing.groups] == [
            (SIG, ["p", "c", "f1", "f2"]),
            (ENC, ["e"]),
        ]

    def test_timeline_counts_but_does_not_draw_keys_beyond_the_maximum(self):
        old = [past(f"p{n}", NOW - HOUR * (n + 1), NOW - HOUR * n) for n in range(1, 40)]
        drawing = draw(current(since=NOW - HOUR), key("next", "future"), *old)

        assert len(drawing.groups[0].rows) == timeline.MAX_ROWS
        assert drawing.groups[0].left_out == 41 - timeline.MAX_ROWS
        assert {"current", "next", "p1"} <= set(rows(drawing))


@dataclass
class History:
    keys: list[Key]
    now: datetime
    times: rotation.Times


@st.composite
def histories(draw_: st.DrawFn) -> History:
    """Generate a history of keys with irregular cron runs, revocations and forced rotations."""
    times = rotation.Times(
        interval=DAY * draw_(st.one_of(st.integers(1, 60), st.integers(1, 3650))),
        lead=timedelta(seconds=draw_(st.integers(0, 80_000))),
        retention=timedelta(seconds=draw_(st.integers(3600, 400_000))),
    )
    now, keys = NOW - times.interval * 2, []
    for use in Key.Use:
        private = draw_(st.booleans()) or use == SIG
        made = key(f"{use}0", "current", use=use, private=private, created_at=now, activated_at=now)
        keys += [made, *([key(f"{use}1", "future", use=use, created_at=now)] if draw_(st.booleans()) else [])]
    for pause in draw_(st.lists(st.floats(0, 1.5), max_size=12)):
        now += times.interval * pause
        event = draw_(st.sampled_from(["cron", "cron", "cron", "force", "revoke"]))
        for use in Key.Use:
            decision = rotation.decide(keys, use=use, now=now, times=times, force=event == "force")
            if decision.retire and decision.activate:
                decision.retire.status, decision.retire.retired_at = Key.Status.PAST, now
                decision.activate.status, decision.activate.activated_at = Key.Status.CURRENT, now
            if decision.make_future:
                keys.append(key(f"{use}{len(keys)}", "future", use=use, created_at=now))
        if event == "revoke":
            bad = draw_(st.sampled_from(keys))
            bad.revoked_at = bad.revoked_at or now
            bad.status = Key.Status.REVOKED
    return History(keys, now + times.interval * draw_(st.floats(0, 1.5)), times)


class TestTheTimelineOfAnyHistory:
    @staticmethod
    def drawing(history: History) -> Timeline:
        drawn = timeline.draw(history.keys, total=len(history.keys), now=history.now, times=history.times)
        if drawn is None:
            nothing = [key for key in history.keys if key.status in {"future", "current"}]
            assert nothing == []
            drawn = Timeline(history.now, history.now + DAY, 0, (), (), 0, 0)
        return drawn

    @given(history=histories())
    @hypothesis_settings(max_examples=60)
    def test_bars_and_marks_of_any_history_are_within_the_timeline(self, history):
        drawing = self.drawing(history)
        for row in rows(drawing).values():
            assert 0 <= row.y <= drawing.height - timeline.ROW
            for bar in row.bars:
                assert drawing.start <= bar.start < bar.end <= drawing.end
                assert bar.x >= 0
                assert bar.width >= 0
                assert bar.x + bar.width <= 100.001
            assert row.revoked_x is None or 0 <= row.revoked_x <= 100
        assert drawing.start <= history.now < drawing.end
        assert 0 <= drawing.now_x < 100

    @given(history=histories())
    @hypothesis_settings(max_examples=60)
    def test_timeline_of_any_history_never_shows_two_current_keys_of_one_use_at_the_same_time(self, history):
        for group in self.drawing(history).groups:
            bars = sorted(
                (bar for row in group.rows for bar in row.bars if bar.phase == "current"), key=lambda bar: bar.start
            )
            for earlier, later in pairwise(bars):
                assert earlier.end <= later.start
                assert earlier.x + earlier.width <= later.x + 0.002

    @given(history=histories())
    @hypothesis_settings(max_examples=60)
    def test_bars_of_a_key_never_overlap_and_only_planned_bars_are_in_the_future(self, history):
        order = ["future", "current", "past"]
        for row in rows(self.drawing(history)).values():
            for earlier, later in pairwise(row.bars):
                assert earlier.end <= later.start
                assert order.index(earlier.phase) <= order.index(later.phase)
            for bar in row.bars:
                assert (bar.start >= history.now) if bar.planned else (bar.end <= history.now)

    @given(history=histories())
    @hypothesis_settings(max_examples=60)
    def test_timeline_of_any_history_draws_or_counts_every_key(self, history):
        drawing = self.drawing(history)
        if drawing.groups:
            drawn = len(rows(drawing)) + sum(group.left_out for group in drawing.groups)
            assert drawn + drawing.gone == len(history.keys)

    @given(history=histories())
    @hypothesis_settings(max_examples=60)
    def test_rows_and_marks_of_a_timeline_never_overlap(self, history):
        drawing = self.drawing(history)
        places = [row.y for row in rows(drawing).values()]
        assert all(later - earlier >= timeline.ROW for earlier, later in pairwise(places))
        assert len(drawing.ticks) <= 6
        assert all(later.x - earlier.x > 15 for earlier, later in pairwise(drawing.ticks))

    @given(history=histories())
    @hypothesis_settings(max_examples=60)
    def test_drawn_bars_of_any_history_are_wide_enough_and_do_not_cross_the_current_time(self, history):
        drawing = self.drawing(history)
        for row in rows(drawing).values():
            edges = [(bar.drawn_x, bar.drawn_x + bar.drawn_width) for bar in row.bars]
            for bar, (left, right) in zip(row.bars, edges, strict=True):
                assert right - left >= timeline.MIN_WIDTH - 0.001
                lowest, highest = (drawing.now_x, 100) if bar.planned else (0, drawing.now_x)
                assert lowest - 0.001 <= left < right <= highest + 0.001
            assert all(earlier[1] <= later[0] + 0.001 for earlier, later in pairwise(edges))

    @given(history=histories())
    @hypothesis_settings(max_examples=60)
    def test_drawn_bars_of_any_history_are_close_to_their_exact_positions(self, history):
        # The timeline widens short bars to the minimum width. Before and after the current time, a key has at most
        # three bars each, so a bar moves by at most three minimum widths.
        furthest = 3 * timeline.MIN_WIDTH + 0.01
        for row in rows(self.drawing(history)).values():
            for bar in row.bars:
                assert abs(bar.drawn_x - bar.x) <= furthest
                assert abs(bar.drawn_x + bar.drawn_width - bar.x - bar.width) <= furthest

    @given(history=histories())
    @hypothesis_settings(max_examples=30)
    def test_drawing_a_timeline_changes_no_key_and_every_lifecycle_gets_a_description(self, history):
        before = [dict(vars(key)) for key in history.keys]
        for row in rows(self.drawing(history)).values():
            assert describe_lifecycle(row.key, row.planned, now=history.now, times=history.times)

        assert [{**vars(key)} for key in history.keys] == before


class TestDescribingALifecycle:
    @pytest.mark.parametrize(
        ("keys", "text"),
        [
            pytest.param(
                [current(), key("next", "future")],
                "Current since 2026-11-13 12:00 UTC. Next rotation due at 2026-12-13 12:00 UTC, in 2\xa0weeks.",
                id="current",
            ),
            pytest.param(
                [current(since=NOW - 40 * DAY), key("next", "future")],
                "Current since 2026-10-14 12:00 UTC. Rotation has been due since 2026-11-13 12:00 UTC.",
                id="overdue",
            ),
            pytest.param(
                [current(use=ENC, private=False)],
                "Current since 2026-11-13 12:00 UTC. No rotation is planned. Import the next public key "
                "from the owner of the private key.",
                id="of a gateway in another deployment",
            ),
            pytest.param(
                [key("next", "future"), current()],
                "Published since 2026-11-13 12:00 UTC. Becomes current at 2026-12-13 12:00 UTC, in 2\xa0weeks.",
                id="future",
            ),
            pytest.param(
                [key("next", "future"), current(since=NOW - 40 * DAY)],
                "Published since 2026-11-13 12:00 UTC. Becomes current at the next rotation, which is due.",
                id="future, overdue",
            ),
            pytest.param(
                [key("next", "future", private=False), current()],
                "Published since 2026-11-13 12:00 UTC. Never becomes current, because its private key is not stored "
                "here.",
                id="public signing key",
            ),
            pytest.param(
                [key("next", "future")],
                "Published since 2026-11-13 12:00 UTC. No rotation to this key is planned.",
                id="no current key",
            ),
            pytest.param(
                [past("old", NOW - 9 * DAY, NOW - HOUR / 2)],
                "Current from 2026-11-14 12:00 UTC to 2026-11-23 11:30 UTC. Its tokens are accepted until "
                "2026-11-23 12:31 UTC.",
                id="past",
            ),
            pytest.param(
                [past("old", NOW - 9 * DAY, NOW - DAY)],
                "Current from 2026-11-14 12:00 UTC to 2026-11-22 12:00 UTC. Its last token "
                "expired at 2026-11-22 13:01 UTC.",
                id="gone",
            ),
            pytest.param(
                [key("bad", "revoked", activated_at=NOW - 5 * DAY, revoked_at=NOW - DAY)],
                "Current from 2026-11-18 12:00 UTC to 2026-11-22 12:00 UTC. Revoked at 2026-11-22 12:00 UTC. "
                "Gateways and services refuse its tokens.",
                id="revoked",
            ),
            pytest.param(
                [key("bad", "revoked", activated_at=NOW - 5 * DAY, revoked_at=NOW - HOUR / 60)],
                "Current from 2026-11-18 12:00 UTC to 2026-11-23 11:59 UTC. Revoked at 2026-11-23 11:59 UTC. "
                "Gateways refuse its tokens; services in other deployments accept these tokens for up to "
                "JWKS_MAX_AGE.",
                id="revoked recently",
            ),
            pytest.param(
                [key("bad", "revoked", revoked_at=NOW - DAY)],
                "Never current. Revoked at 2026-11-22 12:00 UTC. Gateways and services refuse its tokens.",
                id="revoked while future",
            ),
            pytest.param(
                [key("odd", "past")],
                "Current from an unknown time to an unknown time.",
                id="altered",
            ),
        ],
    )
    def test_describe_lifecycle_returns_past_and_planned_phases_with_times(self, keys, text):
        row = rows(draw(*keys))[keys[0].kid]

        assert describe_lifecycle(row.key, row.planned, now=NOW, times=TIMES).strip() == text
