"""Tests of a deny list in memory: the tokens that an entry covers, and the time for which an entry is kept."""

from __future__ import annotations

from typing import Any

import pytest

from instaccess.tokens import Claims
from instaccess.trust import DenyList, Page
from instaccess.trust.revoked import RETENTION
from tests.support.tokens import ISSUER, NOW, claims

USER, OTHER = "2d5d6f1a-0e5b-4a0f-8b5e-3f6f3b0c7a11", "9c1c2f04-58a9-4e0f-a5a4-7d1b9a6f2b10"
ACCOUNT = "7f0a1f4e-9f0c-4a53-9a39-0d6a3c1b2e5d"


def token(**changes: Any) -> Claims:
    return Claims.from_payload(claims(**changes), now=NOW, issuers=[ISSUER])


def deny_list_of(page: Page, *, now: float = 0) -> DenyList:
    deny_list = DenyList()
    deny_list.add(page, now=now)
    return deny_list


def reason(page: Page, *kids: str, **changes: Any) -> str | None:
    """Return why a page of revocations covers a token, by default of USER. Returns None for any other token."""
    return deny_list_of(page).find(token(**changes), *kids)


class TestARevokedToken:
    def test_find_returns_the_reason_for_a_token_with_a_revoked_jti(self):
        assert reason(Page(["mine"]), jti="mine") == "the token was revoked"
        assert reason(Page(["another"]), jti="mine") is None


class TestAllTokens:
    @pytest.mark.parametrize(
        ("all_until", "refused"), [(NOW - 1, False), (NOW, True), (NOW + 1, True)], ids=["before", "equal", "after"]
    )
    def test_k15_deny_list_covers_tokens_issued_up_to_the_time_of_a_revocation_of_all_tokens(
        self, all_until, refused
    ):
        assert (reason(Page(all_until=all_until)) is not None) is refused

    def test_k15_deny_list_uses_the_latest_time_of_several_revocations_of_all_tokens(self):
        deny_list = deny_list_of(Page(all_until=NOW))
        deny_list.add(Page(all_until=NOW - 20), now=0)
        deny_list.add(Page(), now=0)
        assert deny_list.find(token()) == (
            "all tokens with this time of issue or an earlier time of issue were revoked"
        )


class TestAllTokensOfAUser:
    @pytest.mark.parametrize(
        ("latest_iat", "refused"), [(NOW - 1, False), (NOW, True), (NOW + 1, True)], ids=["before", "equal", "after"]
    )
    def test_g33_deny_list_covers_tokens_of_a_user_issued_up_to_the_time_of_the_revocation(self, latest_iat, refused):
        assert (reason(Page(users={USER: latest_iat})) is not None) is refused

    def test_g33_revocation_of_a_user_does_not_cover_tokens_of_another_user(self):
        assert reason(Page(users={OTHER: NOW})) is None
        assert reason(Page(accounts={USER: NOW})) is None

    def test_g33_revocation_of_a_user_covers_tokens_for_a_masquerade_by_or_as_the_user(self):
        masquerade = {"sub": OTHER, "masq_sub": USER, "masq_shard": 1}

        assert reason(Page(users={USER: NOW}), **masquerade) == "all tokens of the user were revoked"
        assert reason(Page(users={OTHER: NOW}), **masquerade) == "all tokens of the user were revoked"

    def test_later_revocation_of_a_user_covers_later_tokens_of_the_user(self):
        deny_list = deny_list_of(Page(users={USER: NOW - 10}))
        deny_list.add(Page(users={USER: NOW}), now=0)
        deny_list.add(Page(users={USER: NOW - 20}), now=0)

        assert deny_list.find(token()) is not None
        assert deny_list.find(token(now=NOW + 1)) is None

    def test_revocation_of_a_user_with_an_empty_uuid_covers_no_token(self):
        assert reason(Page(users={"": NOW})) is None


class TestAllTokensOfAnAccount:
    def test_g33_deny_list_covers_tokens_of_an_account_issued_up_to_the_time_of_the_revocation(self):
        assert reason(Page(accounts={ACCOUNT: NOW})) == "all tokens of the account were revoked"
        assert reason(Page(accounts={ACCOUNT: NOW - 1})) is None
        assert reason(Page(accounts={OTHER: NOW})) is None


class TestAllTokensOfAKey:
    def test_g32_deny_list_covers_every_token_of_a_revoked_signing_or_encryption_key(self):
        for kid in ("signing", "encryption"):
            assert reason(Page(keys=[kid]), "signing", "encryption") == "the key of the token was revoked"
            assert reason(Page(keys=[kid]), "signing", "encryption", now=NOW + 30) is not None
        assert reason(Page(keys=["other"]), "signing", "encryption") is None


class TestTheAgeOfADenyListEntry:
    @pytest.mark.parametrize(
        "page", [Page(["mine"]), Page(users={USER: NOW}), Page(accounts={ACCOUNT: NOW}), Page(all_until=NOW)]
    )
    def test_deny_list_keeps_an_entry_until_every_token_has_expired_and_then_drops_the_entry(self, page):
        deny_list = deny_list_of(Page(), now=500)
        deny_list.add(page, now=500 + RETENTION - 1)
        for now in (500 + RETENTION, 500 + 2 * RETENTION - 1):
            deny_list.add(Page(), now=now)
            assert deny_list.find(token(jti="mine")) is not None

        deny_list.add(Page(), now=500 + 2 * RETENTION)
        assert deny_list.find(token(jti="mine")) is None

    def test_deny_list_keeps_entries_for_the_longest_lifetime_plus_leeway_and_clock_skew(self):
        assert RETENTION == 3600 + 60 + 360

    def test_deny_list_keeps_a_revoked_key_forever(self):
        deny_list = deny_list_of(Page(keys=["stolen"]))
        for period in range(1, 4):
            deny_list.add(Page(), now=period * RETENTION)

        assert deny_list.find(token(), "stolen") is not None

    def test_deny_list_keeps_a_bounded_number_of_entries(self):
        deny_list = DenyList()
        for period in range(10):
            deny_list.add(Page([f"{period}-{number}" for number in range(100)]), now=period * RETENTION)

        assert len(deny_list) == 200


class TestTheEarliestToken:
    @pytest.mark.parametrize("page", [Page(), Page(["other"], users={OTHER: NOW}, accounts={OTHER: NOW})])
    @pytest.mark.parametrize("iat", [0, 1])
    def test_deny_list_does_not_cover_a_token_from_1970_if_there_is_no_entry_for_the_token(self, page, iat):
        token = Claims.from_payload(claims(now=iat), now=iat, issuers=[ISSUER])

        assert deny_list_of(page).find(token) is None


class TestTheSizesOfADenyList:
    def test_sizes_of_a_deny_list_are_the_numbers_of_recent_and_older_entries(self):
        deny_list = deny_list_of(Page(["t1", "t2"], {"u1": 1}, {"a1": 1, "a2": 1, "a3": 1}, ["k1"]))
        deny_list.add(Page(["t3"], {"u2": 1, "u3": 1, "u4": 1}, {"a4": 1}, ["k1", "k2"]), now=RETENTION)

        assert deny_list.sizes() == {"token": 3, "user": 4, "account": 4, "key": 2}


class TestTheTokensOfADenyList:
    def test_deny_list_is_equal_to_the_set_of_the_jtis_of_its_tokens(self):
        deny_list = deny_list_of(Page(["one", "both"]))
        deny_list.add(Page(["two", "both"]), now=RETENTION)

        assert deny_list == {"one", "two", "both"}
        assert len(deny_list) == 3
        assert sorted(deny_list) == ["both", "one", "two"]
        assert "three" not in deny_list
