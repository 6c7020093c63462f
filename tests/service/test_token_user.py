"""Tests of the identity and the permissions of a `TokenUser`, the user of a service without local users."""

from __future__ import annotations

from instaccess.service import AcceptedClaims, TokenUser
from tests.service.helpers import OTHER_CLAIMS


class TestATokenUser:
    USER = TokenUser(AcceptedClaims(**OTHER_CLAIMS))

    def test_a_token_user_is_authenticated_and_has_the_uuid_of_the_token(self):
        assert self.USER.is_authenticated
        assert not self.USER.is_anonymous
        assert self.USER.is_active
        assert {self.USER.uuid, self.USER.pk, self.USER.id, str(self.USER), self.USER.get_username()} == {"anybody"}

    def test_a_token_user_has_no_permissions(self):
        assert not self.USER.is_staff
        assert not self.USER.is_superuser
        assert not self.USER.has_perm("instaccess.masquerade")
        assert not self.USER.has_perms(["instaccess.masquerade"])
        assert not self.USER.has_module_perms("instaccess")

    def test_two_token_users_are_equal_if_their_uuids_are_equal(self):
        same = TokenUser(AcceptedClaims(**OTHER_CLAIMS))
        decoded = TokenUser(AcceptedClaims(**{**OTHER_CLAIMS, "user_uuid": str(b"anybody", "ascii")}))
        others = [TokenUser(AcceptedClaims(**{**OTHER_CLAIMS, "user_uuid": name})) for name in ("another", "no one")]

        assert {self.USER, same, decoded} == {self.USER}
        assert self.USER not in others
        assert "anybody" not in {self.USER}
