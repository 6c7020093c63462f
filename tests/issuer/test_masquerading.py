"""Tests of masquerades with `as_user_id`: callers, targets, tokens and records (docs/wire-contract.md §1 and §2)."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission, PermissionsMixin
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instaccess import users
from instaccess.models import IssuedToken, ServiceUser
from tests.conftest import ISSUE_URL
from tests.support.answers import INVALID, INVALID_AS_USER_ID, UNAVAILABLE, answer, claims_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("initial_keys")]

User = get_user_model()


def permission(name: str) -> Permission:
    app, codename = name.split(".")
    return Permission.objects.get(content_type__app_label=app, codename=codename)


@pytest.fixture
def target(db: None) -> Any:
    return User.objects.create_user("grace")


@pytest.fixture
def caller(user: Any) -> Any:
    """Give the user of the access token the permission to masquerade, and return the user."""
    user.user_permissions.add(permission("instaccess.masquerade"))
    return user


@pytest.fixture
def ask(post: Callable[..., Any], access_token: Any) -> Callable[[Any], Any]:
    """Return a function that POSTs `as_user_id` in a form and returns the response."""
    return lambda as_user_id: post(access_token, data={"as_user_id": as_user_id})


class TestTheCallerOfAMasquerade:
    def test_caller_with_the_permission_can_masquerade(self, caller, target, ask):
        response = ask(target.pk)

        assert response.status_code == 201
        assert claims_of(response.json()["token"])["sub"] == users.user_uuid(target)

    def test_caller_with_the_permission_through_a_group_can_masquerade(self, user, target, ask):
        group = Group.objects.create(name="support")
        group.permissions.add(permission("instaccess.masquerade"))
        user.groups.add(group)

        assert ask(target.pk).status_code == 201

    def test_superuser_can_masquerade(self, user, target, ask):
        User.objects.filter(pk=user.pk).update(is_superuser=True)

        assert ask(target.pk).status_code == 201

    def test_p19_caller_without_the_permission_cannot_masquerade(self, user, target, ask):
        assert answer(ask(target.pk)) == INVALID_AS_USER_ID

    @pytest.mark.parametrize("other", ["instaccess.revoke_tokens", "instaccess.view_issuedtoken", "auth.change_user"])
    def test_p19_caller_with_other_permissions_cannot_masquerade(self, user, target, ask, other):
        user.user_permissions.add(permission(other))

        assert answer(ask(target.pk)) == INVALID_AS_USER_ID

    def test_p19_inactive_caller_cannot_masquerade(self, caller, target, ask):
        User.objects.filter(pk=caller.pk).update(is_active=False)

        assert answer(ask(target.pk)) == INVALID

    def test_p24_caller_without_the_permission_gets_the_same_response_for_existing_and_unknown_users(
        self, user, target, ask, caplog
    ):
        users.user_uuid(user)
        outcomes = []
        for as_user_id in (target.pk, 2**31 - 2, "nobody", "uuid:x", f"uuid:{users.user_uuid(target)}"):
            caplog.clear()
            with CaptureQueriesContext(connection) as queries:
                response = ask(as_user_id)
            headers = dict(response.items())
            outcomes.append((response.content, headers, [query["sql"] for query in queries], caplog.messages))

        assert answer(ask(target.pk)) == INVALID_AS_USER_ID
        assert all(outcome == outcomes[0] for outcome in outcomes)
        assert "the caller lacks the permission instaccess.masquerade" in outcomes[0][3][0]

    def test_p22_issuer_refuses_masquerades_if_the_user_model_has_no_has_perm(self, caller, target, ask, monkeypatch):
        User.objects.filter(pk=caller.pk).update(is_superuser=True)
        monkeypatch.delattr(PermissionsMixin, "has_perm")

        assert answer(ask(target.pk)) == INVALID_AS_USER_ID
        assert ask(caller.pk).status_code == 201

    def test_p22_issuer_refuses_masquerades_if_an_authentication_backend_lists_no_permissions(
        self, caller, target, ask, settings
    ):
        settings.AUTHENTICATION_BACKENDS = [*settings.AUTHENTICATION_BACKENDS, "tests.test_checks.OnlyHasPerm"]

        assert answer(ask(target.pk)) == INVALID_AS_USER_ID

    def test_p22_issuer_refuses_masquerades_if_the_only_authentication_backend_lists_no_permissions(
        self, user, target, ask, settings
    ):
        settings.AUTHENTICATION_BACKENDS = ["tests.test_checks.OnlyHasPerm"]

        assert answer(ask(target.pk)) == INVALID_AS_USER_ID

    def test_p22_superuser_can_masquerade_if_permissions_cannot_be_compared(self, user, target, ask, settings):
        User.objects.filter(pk=user.pk).update(is_superuser=True)
        settings.AUTHENTICATION_BACKENDS = ["tests.test_checks.OnlyHasPerm"]

        assert ask(target.pk).status_code == 201

    def test_p22_only_superusers_can_masquerade_if_there_are_no_authentication_backends(
        self, caller, target, ask, settings
    ):
        settings.AUTHENTICATION_BACKENDS = []
        assert answer(ask(target.pk)) == INVALID_AS_USER_ID
        User.objects.filter(pk=caller.pk).update(is_superuser=True)

        assert ask(target.pk).status_code == 201


class TestTheTargetOfAMasquerade:
    def test_p23_caller_who_is_not_staff_cannot_masquerade_as_staff(self, caller, target, ask):
        User.objects.filter(pk=target.pk).update(is_staff=True)

        assert answer(ask(target.pk)) == INVALID_AS_USER_ID

    def test_p23_superuser_who_is_not_staff_cannot_masquerade_as_staff(self, caller, target, ask):
        User.objects.filter(pk=caller.pk).update(is_superuser=True)
        User.objects.filter(pk=target.pk).update(is_staff=True)

        assert answer(ask(target.pk)) == INVALID_AS_USER_ID

    def test_caller_who_is_staff_can_masquerade_as_staff(self, caller, target, ask):
        User.objects.update(is_staff=True)

        assert ask(target.pk).status_code == 201

    def test_p19_caller_cannot_masquerade_as_a_superuser(self, caller, target, ask):
        User.objects.filter(pk=target.pk).update(is_superuser=True)

        assert answer(ask(target.pk)) == INVALID_AS_USER_ID

    def test_p19_caller_with_every_permission_cannot_masquerade_as_a_superuser(self, caller, target, ask):
        caller.user_permissions.set(Permission.objects.all())
        User.objects.filter(pk=target.pk).update(is_superuser=True)

        assert answer(ask(target.pk)) == INVALID_AS_USER_ID

    def test_superuser_can_masquerade_as_a_superuser(self, user, target, ask):
        User.objects.update(is_superuser=True)

        assert ask(target.pk).status_code == 201

    def test_p19_caller_cannot_masquerade_as_a_user_with_more_permissions(self, caller, target, ask):
        target.user_permissions.add(permission("auth.change_user"))

        assert answer(ask(target.pk)) == INVALID_AS_USER_ID

    def test_p19_caller_cannot_masquerade_as_a_user_with_more_permissions_through_a_group(self, caller, target, ask):
        group = Group.objects.create(name="staff")
        group.permissions.add(permission("auth.change_user"))
        target.groups.add(group)

        assert answer(ask(target.pk)) == INVALID_AS_USER_ID

    def test_caller_can_masquerade_as_a_user_with_the_same_permissions(self, caller, target, ask):
        for each in (caller, target):
            each.user_permissions.add(permission("auth.change_user"))
        target.user_permissions.add(permission("instaccess.masquerade"))

        assert ask(target.pk).status_code == 201

    def test_p19_caller_cannot_masquerade_as_an_inactive_user(self, caller, target, ask):
        User.objects.filter(pk=target.pk).update(is_active=False)

        assert answer(ask(target.pk)) == INVALID_AS_USER_ID
        assert answer(ask(f"uuid:{users.user_uuid(target)}")) == INVALID_AS_USER_ID

    def test_p19_superuser_cannot_masquerade_as_an_inactive_user(self, user, target, ask):
        User.objects.filter(pk=target.pk).update(is_active=False)
        User.objects.filter(pk=user.pk).update(is_superuser=True)

        assert answer(ask(target.pk)) == INVALID_AS_USER_ID

    def test_p19_caller_cannot_masquerade_as_an_unknown_user(self, caller, ask):
        assert answer(ask(2**31 - 2)) == INVALID_AS_USER_ID
        assert answer(ask(f"uuid:{uuid.uuid4()}")) == INVALID_AS_USER_ID

    def test_issuer_recognizes_the_id_of_the_caller_without_a_query(self, user, ask):
        own_uuid = f"uuid:{users.user_uuid(user)}"
        ask("")  # Load the keys before the queries are counted.
        for as_user_id in (user.pk, own_uuid):
            with CaptureQueriesContext(connection) as queries:
                assert ask(as_user_id).status_code == 201
            selects = [query["sql"] for query in queries if query["sql"].startswith("SELECT")]
            assert len(selects) == 1
            assert "oauth2_provider_accesstoken" in selects[0]

    def test_caller_who_sends_their_own_id_gets_a_token_without_masquerade_claims(self, user, ask):
        for spelling in (user.pk, f"uuid:{users.user_uuid(user)}"):
            claims = claims_of(ask(spelling).json()["token"])

            assert claims["sub"] == users.user_uuid(user)
            assert not {"masq_sub", "masq_shard", "debug_masq_global_id"} & set(claims)
        assert set(IssuedToken.objects.values_list("real_user", "real_user_uuid")) == {(None, "")}


class TestTheParameterAsUserId:
    def test_issuer_finds_the_target_of_a_masquerade_by_primary_key(self, caller, target, ask):
        assert claims_of(ask(target.pk).json()["token"])["debug_user_global_id"] == str(target.pk)

    def test_issuer_finds_the_target_of_a_masquerade_by_uuid(self, caller, target, ask):
        as_user_id = f"uuid:{users.user_uuid(target)}"

        assert claims_of(ask(as_user_id).json()["token"])["debug_user_global_id"] == str(target.pk)

    def test_issuer_finds_the_target_of_a_masquerade_by_the_configured_uuid_field(
        self, caller, target, ask, settings
    ):
        settings.INSTACCESS = {"USER_UUID_FIELD": "username"}

        claims = claims_of(ask("uuid:grace").json()["token"])

        assert (claims["sub"], claims["masq_sub"]) == ("grace", "ada")

    def test_issuer_reads_as_user_id_from_the_query(self, caller, target, post, access_token):
        response = post(access_token, url=f"{ISSUE_URL}?as_user_id={target.pk}")

        assert claims_of(response.json()["token"])["debug_user_global_id"] == str(target.pk)

    def test_issuer_reads_as_user_id_from_a_multipart_form_but_not_from_json(
        self, caller, target, client, access_token
    ):
        headers = {"Authorization": f"Bearer {access_token.token}"}
        form = client.post(ISSUE_URL, {"as_user_id": target.pk}, headers=headers)
        body = client.post(ISSUE_URL, {"as_user_id": target.pk}, content_type="application/json", headers=headers)

        subjects = [claims_of(r.json()["token"])["debug_user_global_id"] for r in (form, body)]
        assert subjects == [str(target.pk), str(caller.pk)]

    @pytest.mark.parametrize("blank", ["", " ", "\t", "\u3000"])
    def test_issuer_ignores_a_blank_as_user_id(self, user, ask, blank):
        assert "masq_sub" not in claims_of(ask(blank).json()["token"])

    @pytest.mark.parametrize(
        "spelling",
        [
            "0{}", "+{}", "{}.0", "{}e0", "-{}", "{} or 1=1", "{},{}", "{}_0", "0x{}", "{}\x00", "\x00{}", "{}\u200b",
        ],
    )  # fmt: skip
    def test_p19_as_user_id_with_a_non_canonical_primary_key_is_refused(self, caller, target, ask, spelling):
        assert answer(ask(spelling.replace("{}", str(target.pk)))) == INVALID_AS_USER_ID

    @pytest.mark.parametrize("zero", ["\u0660", "\uff10", "\U0001d7ce"], ids=["arabic", "fullwidth", "bold"])
    def test_p19_as_user_id_in_digits_of_another_script_is_refused(self, caller, target, ask, zero):
        digits = "".join(chr(ord(zero) + int(digit)) for digit in str(target.pk))

        assert answer(ask(digits)) == INVALID_AS_USER_ID

    @pytest.mark.parametrize(
        "text",
        [
            "9" * 19, "9" * 30, "9" * 5000, str(2**31), str(2**63), str(2**64), "-1", "self", "None", "true", "grace",
            "uuid:", "uuid:x", "uuid:\x00", "uuid:" + "9" * 5000, "UUID:x", "sis_user_id:7", "\x00", "\ufffd", "%00",
        ],
        ids=lambda text: repr(text[:12]) + str(len(text)),
    )  # fmt: skip
    @pytest.mark.parametrize("field", [None, "username"])
    def test_p19_malformed_as_user_id_is_refused(self, caller, ask, settings, field, text):
        settings.INSTACCESS = {"USER_UUID_FIELD": field}

        assert answer(ask(text)) == INVALID_AS_USER_ID

    def test_p19_as_user_id_with_a_non_canonical_uuid_is_refused(self, caller, target, ask):
        known = users.user_uuid(target)
        for spelling in (known.upper(), known.replace("-", ""), f"urn:uuid:{known}", f"{{{known}}}", f" {known}"):
            assert answer(ask(f"uuid:{spelling}")) == INVALID_AS_USER_ID

    def test_issuer_ignores_white_space_around_as_user_id(self, caller, target, ask):
        assert ask(f" {target.pk}\n").status_code == 201

    def test_issuer_uses_the_last_of_two_as_user_id_values(self, caller, target, post, access_token):
        User.objects.filter(pk=target.pk).update(is_superuser=True)

        response = post(access_token, url=f"{ISSUE_URL}?as_user_id={caller.pk}&as_user_id={target.pk}")

        assert answer(response) == INVALID_AS_USER_ID

    @given(text=st.text(max_size=40))
    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_p19_issuer_returns_201_or_401_for_any_value_of_as_user_id(self, caller, ask, text):
        assert ask(text).status_code in {201, 401}


class TestTheMasqueradeHook:
    def test_masquerade_hook_can_allow_users_without_the_permission(self, user, target, ask, settings):
        calls: list[Any] = []
        settings.INSTACCESS = {"MASQUERADE_HOOK": lambda caller, target: not calls.append((caller, target))}

        assert ask(target.pk).status_code == 201
        assert calls == [(user, target)]

    def test_masquerade_hook_can_refuse_superusers(self, user, target, ask, settings):
        User.objects.filter(pk=user.pk).update(is_superuser=True)
        settings.INSTACCESS = {"MASQUERADE_HOOK": lambda caller, target: False}

        assert answer(ask(target.pk)) == INVALID_AS_USER_ID

    def test_masquerade_hook_is_not_called_for_the_caller_or_for_inactive_or_unknown_users(
        self, user, target, ask, settings
    ):
        def never(caller: Any, target: Any) -> bool:
            raise AssertionError("the hook was called")

        settings.INSTACCESS = {"MASQUERADE_HOOK": never}
        User.objects.filter(pk=target.pk).update(is_active=False)

        assert ask(user.pk).status_code == 201
        assert answer(ask(target.pk)) == INVALID_AS_USER_ID
        assert answer(ask("no such")) == INVALID_AS_USER_ID

    def test_issuer_returns_503_if_the_masquerade_hook_fails(self, caller, target, ask, settings):
        settings.INSTACCESS = {"MASQUERADE_HOOK": lambda caller, target: {}[target.pk]}

        assert answer(ask(target.pk)) == UNAVAILABLE
        assert not IssuedToken.objects.exists()


class TestTheMasqueradeToken:
    def test_masquerade_token_names_the_target_and_the_caller(self, caller, target, ask):
        claims = claims_of(ask(target.pk).json()["token"])

        assert claims["sub"] == users.user_uuid(target)
        assert claims["debug_user_global_id"] == str(target.pk)
        assert claims["masq_sub"] == users.user_uuid(caller)
        assert claims["masq_shard"] == 1
        assert claims["debug_masq_global_id"] == str(caller.pk)

    def test_masquerade_token_has_the_configured_shard(self, caller, target, ask, settings):
        settings.INSTACCESS = {"SHARD_ID": 17}

        claims = claims_of(ask(target.pk).json()["token"])

        assert (claims["masq_shard"], claims["canvas_shard_id"]) == (17, 17)

    def test_masquerade_token_adds_only_the_three_masquerade_claims(self, caller, target, ask):
        plain, masked = (claims_of(ask(who).json()["token"]) for who in ("", target.pk))

        assert set(masked) - set(plain) == {"masq_sub", "masq_shard", "debug_masq_global_id"}

    def test_masquerade_token_can_be_unencrypted_in_development(self, caller, target, post, access_token, settings):
        settings.DEBUG, settings.INSTACCESS = True, {"ALLOW_UNENCRYPTED": True}

        response = post(access_token, data={"as_user_id": target.pk, "unencrypted": "1"})

        assert claims_of(response.json()["token"])["masq_sub"] == users.user_uuid(caller)

    def test_masquerade_token_of_a_service_user_names_the_application(
        self, caller, target, post, application, make_access_token
    ):
        ServiceUser.objects.create(application=application, user=caller)

        response = post(make_access_token(user=None), data={"as_user_id": target.pk})

        claims = claims_of(response.json()["token"])
        assert (claims["sub"], claims["masq_sub"]) == (users.user_uuid(target), users.user_uuid(caller))
        assert (claims["client_id"], claims["instructure_service"]) == (application.client_id, True)


class TestTheRecordsOfAMasquerade:
    def test_audit_row_of_a_masquerade_contains_the_target_and_the_caller(self, caller, target, ask):
        ask(target.pk)

        row = IssuedToken.objects.get()
        assert (row.user, row.user_uuid) == (target, users.user_uuid(target))
        assert (row.real_user, row.real_user_uuid) == (caller, users.user_uuid(caller))

    def test_audit_row_of_a_masquerade_keeps_both_uuids_after_both_users_were_deleted(self, caller, target, ask):
        known = users.user_uuid(target), users.user_uuid(caller)
        ask(target.pk)
        target.delete()
        caller.delete()

        assert IssuedToken.objects.values_list("user", "real_user", "user_uuid", "real_user_uuid").get() == (
            None,
            None,
            *known,
        )

    def test_log_of_a_masquerade_contains_the_target_and_the_caller(self, caller, target, ask, caplog):
        caplog.set_level(logging.INFO, logger="instaccess.issuer")

        ask(target.pk)

        assert f"user={target.pk} real_user={caller.pk} " in caplog.text

    def test_p19_log_contains_the_reason_for_a_refused_masquerade(self, user, target, ask, caplog):
        ask(target.pk)
        user.user_permissions.add(permission("instaccess.masquerade"))
        User.objects.filter(pk=target.pk).update(is_superuser=True)
        ask(target.pk)
        ask("2147483646")

        no_permission, not_allowed, unknown = (
            record.getMessage() for record in caplog.records if record.name == "instaccess.issuer"
        )
        assert f"reason=as_user_id_not_allowed user={user.pk} " in no_permission
        assert "the caller lacks the permission instaccess.masquerade" in no_permission
        assert f"reason=as_user_id_not_allowed user={user.pk} " in not_allowed
        assert f"is not allowed to get tokens for user {target.pk}" in not_allowed
        assert f"reason=as_user_id_unknown user={user.pk} " in unknown

    def test_p19_refused_masquerade_writes_no_audit_row(self, user, target, ask):
        ask(target.pk)

        assert not IssuedToken.objects.exists()

    def test_refused_masquerade_does_not_reveal_whether_a_user_exists(self, user, target, ask):
        assert ask(target.pk).content == ask("2147483646").content


class TestThePermissionToMasquerade:
    def test_migration_creates_the_permission_to_masquerade(self):
        assert permission("instaccess.masquerade").name == "Can get InstAccess tokens for other users"
