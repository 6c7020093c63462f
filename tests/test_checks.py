"""Tests of `manage.py check`. For each check id, a test causes the message, which must name the setting to change."""

from __future__ import annotations

import ast
import re
import secrets
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.core.checks import ERROR, WARNING, CheckMessage, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import OperationalError, connection
from django.test import override_settings

from instaccess.audit import checks as audit_checks
from instaccess.conf import SCOPE, Conf, conf
from instaccess.conf import checks as conf_checks
from instaccess.exceptions import ConfigError
from instaccess.issuer import checks as issuer_checks
from instaccess.keys import checks as keys_checks
from instaccess.models import Key
from instaccess.monitoring import checks as monitoring_checks
from instaccess.service import checks as service_checks
from instaccess.trust import checks as trust_checks

SCOPES = {"read": "Read", SCOPE: "Issue InstAccess tokens"}

VALID_PROJECT: dict[str, Any] = {
    "ALLOWED_HOSTS": ["canvas.example.edu"],
    "SECURE_SSL_REDIRECT": True,
    "SECURE_REDIRECT_EXEMPT": [r"^internal/"],
    "OAUTH2_PROVIDER": {"SCOPES": SCOPES, "DEFAULT_SCOPES": ["read"]},
    "INSTACCESS": {"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]},
    "CACHES": {
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1"}
    },
}


def run(*, deploy: bool = False, databases: list[str] | None = None) -> dict[str, CheckMessage]:
    """Run the checks, and return the messages of this app by id, without the prefix "instaccess."."""
    messages = run_checks(include_deployment_checks=deploy, databases=databases)
    own = [message for message in messages if message.id.startswith("instaccess.")]
    assert len({message.id for message in own}) == len(own)
    return {message.id.removeprefix("instaccess."): message for message in own}


def text_of(message: CheckMessage) -> str:
    return f"{message.msg} {message.hint or ''}"


TIMEOUTS: dict[str, dict[str, int]] = {
    "postgresql": {"connect_timeout": 60},
    "mysql": {"connect_timeout": 60, "read_timeout": 60},
}


@pytest.fixture(autouse=True)
def valid_project(monkeypatch: pytest.MonkeyPatch) -> Any:
    database = connection.settings_dict
    monkeypatch.setitem(database, "OPTIONS", database["OPTIONS"] | TIMEOUTS.get(connection.vendor, {}))
    with override_settings(**VALID_PROJECT):
        yield


def instaccess(**values: Any) -> dict[str, Any]:
    return {"INSTACCESS": VALID_PROJECT["INSTACCESS"] | values}


# For each check id, this mapping contains settings that cause the message, and strings that the message must contain.
ERRORS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "E001": ({"INSTACCESS": [("LIFETIME", 60)]}, ["INSTACCESS", "dictionary"]),
    "E002": (instaccess(LIFETYME=60), ["LIFETYME", "LIFETIME"]),
    "E003": (instaccess(USER_UUID_FIELD="no_such_field"), ["USER_UUID_FIELD", "no_such_field", "AUTH_USER_MODEL"]),
    "E004": ({"USE_TZ": False}, ["USE_TZ = True"]),
    "E050": (instaccess(DENY_LIST="https://canvas.example.edu/x"), ["DENY_LIST", "SERVICE_SECRETS"]),
    "E057": (
        instaccess(KEEP_DECISION_SECONDS=2, DENY_LIST_SECONDS=2),
        ["KEEP_DECISION_SECONDS", "DENY_LIST_SECONDS", "revocation", "5 s"],
    ),
    "E006": (
        {"OAUTH2_PROVIDER": {"SCOPES": {"read": "Read"}, "DEFAULT_SCOPES": ["read"]}},
        [SCOPE, 'OAUTH2_PROVIDER["SCOPES"]'],
    ),
}
WARNINGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "W003": ({"OAUTH2_PROVIDER": {"SCOPES": SCOPES}}, ["DEFAULT_SCOPES", "__all__"]),
}
DEPLOYMENT_WARNINGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "W001": (instaccess(ENCRYPTION_ALG="RSA1_5"), ["ENCRYPTION_ALG", "RSA1_5", "RSA-OAEP"]),
    "W002": ({"INSTACCESS": {}}, ["KEY_ENCRYPTION_KEYS", "SECRET_KEY", "secrets.token_urlsafe(32)"]),
    "W004": (instaccess(ALLOW_UNENCRYPTED=True), ["ALLOW_UNENCRYPTED", "DEBUG"]),
    "W005": (instaccess(ALLOW_TOKEN_IN_PARAMETERS=True), ["ALLOW_TOKEN_IN_PARAMETERS", "Authorization: Bearer"]),
    "W006": ({"ALLOWED_HOSTS": ["*"]}, ["ALLOWED_HOSTS", "ACCOUNT_UUID", "ACCOUNT_HOOK"]),
    "W009": (
        {"CACHES": {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}},
        ["THROTTLE_CACHE", "THROTTLE_LIMIT", "Redis"],
    ),
    "W010": ({"SECURE_REDIRECT_EXEMPT": []}, ["SECURE_SSL_REDIRECT", "SECURE_REDIRECT_EXEMPT", "internal"]),
    "W007": ({"SECURE_SSL_REDIRECT": False}, ["SECURE_SSL_REDIRECT", "SECURE_PROXY_SSL_HEADER"]),
    "W020": (instaccess(ALLOW_HTTP_URLS=True), ["ALLOW_HTTP_URLS", "https://"]),
}
# Separate tests cover these check ids: in this file, in tests/test_restore.py, in tests/audit, in tests/issuer, in
# tests/service or in tests/gateway/test_separate_gateway.py.
TESTED_SEPARATELY = {"E005", "E007", "E008", "E009", "W008", "W011", "W012", "W013", "E051", "E052", "E053"} | {
    "E055",
    "E060",
    "E061",
    "W021",
    "W030",
    "W031",
    "W032",
    "W033",
    "W034",
    "W035",
    "W036",
    "E062",
}


CHECKS = (audit_checks, conf_checks, issuer_checks, keys_checks, monitoring_checks, service_checks, trust_checks)


class TestEveryCheckId:
    source = ast.parse("\n".join(Path(module.__file__).read_text() for module in CHECKS))

    def test_every_check_id_has_one_meaning_and_a_test(self):
        ids = Counter(
            match[1]
            for node in ast.walk(self.source)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            if (match := re.fullmatch(r"(?:instaccess\.)?([A-Z]\d{3})", node.value))
        )

        assert [check_id for check_id, times in ids.items() if times > 1] == []
        bad_settings = {check_id.removeprefix("instaccess.") for check_id in conf_checks.BAD_SETTING_IDS.values()}
        # If you add a check, add a test that causes the message with the new check id.
        assert set(ids) == set(ERRORS) | set(WARNINGS) | set(DEPLOYMENT_WARNINGS) | TESTED_SEPARATELY | bad_settings

    def test_every_check_function_is_registered(self):
        functions = [node for node in self.source.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]

        assert [function.name for function in functions if not function.decorator_list] == []


class TestAValidProject:
    def test_valid_project_gets_no_messages_from_the_check(self):
        assert run() == {}

    def test_valid_project_gets_no_messages_from_the_deployment_check(self):
        assert run(deploy=True) == {}

    def test_valid_project_gets_no_messages_about_existing_keys(self, initial_keys):
        assert run(databases=["default"]) == {}


class TestAnInvalidProject:
    @pytest.mark.parametrize("check_id", [*ERRORS, *WARNINGS])
    def test_check_reports_each_problem_and_names_the_setting_to_change(self, check_id):
        settings, names = (ERRORS | WARNINGS)[check_id]

        with override_settings(**settings):
            messages = run()

        assert list(messages) == [check_id]
        assert messages[check_id].level == (ERROR if check_id in ERRORS else WARNING)
        assert [name for name in names if name not in text_of(messages[check_id])] == []

    @pytest.mark.parametrize("name", conf_checks.BAD_SETTING_IDS)
    def test_invalid_value_of_each_setting_is_reported_with_the_check_id_of_this_setting(self, name):
        with override_settings(**instaccess(**{name: object()})):
            messages = run(deploy=True)

        assert [f"instaccess.{check_id}" for check_id in messages] == [conf_checks.BAD_SETTING_IDS[name]]
        (message,) = messages.values()
        assert message.level == ERROR
        assert f"INSTACCESS['{name}']" in message.msg

    def test_check_reports_each_of_several_invalid_settings(self):
        with override_settings(**instaccess(LIFETIME=0, REALM="", LIFETYME=60)):
            assert set(run()) == {"E002", "E011", "E025"}

    def test_check_reports_once_that_instaccess_is_not_a_dictionary(self):
        with override_settings(INSTACCESS=None):
            assert list(run(deploy=True)) == ["E001"]

    def test_message_about_an_invalid_key_encryption_key_does_not_contain_the_key(self):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["not-a-key-but-still-secret"]}):
            message = run()["E023"]

        assert "still-secret" not in text_of(message) + repr(message)
        assert "secrets.token_urlsafe(32)" in message.msg

    def test_check_reports_a_database_without_autocommit_as_an_error(self, monkeypatch):
        monkeypatch.setitem(connection.settings_dict, "AUTOCOMMIT", False)

        assert "DATABASES['default']['AUTOCOMMIT']" in run()["E005"].msg


class TestKeysInTheSettings:
    @pytest.mark.parametrize(("setting", "check_id"), [("DECRYPTION_KEYS", "W011"), ("VERIFICATION_KEYS", "W012")])
    @pytest.mark.parametrize(
        ("key", "why"),
        [
            ("/nowhere/key.pem", "is neither a valid key nor the path of a readable file (FileNotFoundError)"),
            ("{not JSON", "neither"),
            ("-----BEGIN SECRET", "neither"),
        ],
    )
    def test_check_warns_about_an_unusable_key_without_showing_the_key(self, rsa_pool, setting, check_id, key, why):
        good = rsa_pool.take().export_to_pem(private_key=True, password=None).decode()
        with override_settings(**instaccess(**{setting: [good, key]})):
            messages = run()

        assert list(messages) == [check_id]
        assert messages[check_id].level == WARNING
        assert f"INSTACCESS['{setting}'][1]" in messages[check_id].msg
        assert why in messages[check_id].msg
        assert "SECRET" not in text_of(messages[check_id])

    def test_check_does_not_fetch_keys_from_a_url(self):
        with override_settings(**instaccess(VERIFICATION_KEYS="https://127.0.0.1:9/jwks")):
            assert run() == {}


class TestAnUnknownSetting:
    def test_check_reports_an_unknown_setting_and_also_the_invalid_settings(self):
        with override_settings(**instaccess(ACCOUNT_UIID="x", LIFETIME=7200, LEEWAY="1")):
            messages = run(deploy=True)

        assert set(messages) == {"E002", "E011", "E032"}
        assert messages["E011"].msg.endswith("must be an integer from 1 to 3600 (it is 7200).")

    def test_reading_any_setting_fails_if_a_setting_is_unknown_because_a_restriction_may_be_misspelled(self):
        with override_settings(**instaccess(ACCOUNT_UIID="x")), pytest.raises(ConfigError, match="ACCOUNT_UIID"):
            _ = conf.account_uuid

    @pytest.mark.parametrize("name", ["", 0, None, ("LIFETIME",)])
    def test_check_reports_an_unknown_setting_with_any_name(self, name):
        with override_settings(INSTACCESS={name: 1}):
            with pytest.raises(ConfigError, match="is not a setting of instaccess"):
                _ = conf.account_uuid
            assert list(run()) == ["E002"]

    def test_reading_any_setting_fails_while_the_check_reports_an_unknown_setting(self, monkeypatch):
        # The check must use a separate `Conf`. If the check removed the unknown name from the shared `conf`, other
        # threads could read settings without an error.
        def read(given: Conf) -> str:
            with pytest.raises(ConfigError):
                _ = conf.account_uuid
            return "realm"

        monkeypatch.setattr(Conf, "realm", property(read))
        with override_settings(**instaccess(ACCOUNT_UIID="x")):
            assert list(run()) == ["E002"]
            with pytest.raises(ConfigError):
                _ = conf.account_uuid


class TestTheUserUuidField:
    def test_user_uuid_field_may_be_any_field_of_the_user_model(self):
        with override_settings(**instaccess(USER_UUID_FIELD="username")):
            assert run() == {}


class TestOneSchemaPerTenant:
    """Tests of the settings of django-tenants. The tests in tests/test_tenants.py run django-tenants."""

    SHARED = ("django.contrib.auth", "oauth2_provider", "instaccess")

    @pytest.mark.parametrize("app", [*SHARED, "instaccess.apps.InstAccessConfig"])
    @pytest.mark.parametrize("library", ["TENANT_APPS", "TENANT_TYPES", "TENANTS"])
    def test_k18_check_refuses_tables_in_the_schema_of_each_tenant(self, app, library):
        kinds = {"public": {"APPS": self.SHARED}, "school": {"APPS": ["courses", app]}}

        with override_settings(**{library: ["courses", app] if library == "TENANT_APPS" else kinds}):
            message = run()["E060"]

        assert message.level == ERROR
        assert f"would have tables in each schema: {app.removesuffix('.apps.InstAccessConfig')}. " in message.msg
        assert "SHARED_APPS" in message.hint

    def test_k18_check_names_every_app_that_the_tenants_must_share(self):
        with override_settings(TENANT_APPS=[*self.SHARED, "courses"]):
            assert "each schema: django.contrib.auth, instaccess, oauth2_provider. " in run()["E060"].msg

    def test_k18_check_accepts_tables_that_all_tenants_share(self):
        kinds = {"public": {"APPS": self.SHARED}, "school": {"APPS": ["courses"]}}

        with override_settings(SHARED_APPS=self.SHARED, TENANT_APPS=["courses"], TENANT_TYPES=kinds, TENANTS=kinds):
            assert run() == {}
        with override_settings(PUBLIC_SCHEMA_NAME="all", TENANT_TYPES={"all": {"APPS": self.SHARED}}):
            assert run() == {}


class OnlyHasPerm:
    def has_perm(self, user: Any, perm: str, obj: Any = None) -> bool:
        return True


class Lenient(ModelBackend):
    def has_perm(self, user: Any, perm: str, obj: Any = None) -> bool:
        return True


class Listing(OnlyHasPerm):
    def get_all_permissions(self, user: Any, obj: Any = None) -> set[str]:
        return {"instaccess.masquerade"}


class TestPermissionsThatCannotBeCompared:
    backend = "django.contrib.auth.backends.ModelBackend"

    @pytest.mark.parametrize("name", ["OnlyHasPerm", "Lenient"])
    def test_p22_check_warns_about_a_backend_that_grants_permissions_without_listing_the_permissions(self, name):
        with override_settings(AUTHENTICATION_BACKENDS=[self.backend, f"tests.test_checks.{name}"]):
            message = run()["W013"]

        assert message.level == WARNING
        for text in (
            f"tests.test_checks.{name}",
            "AUTHENTICATION_BACKENDS",
            "get_all_permissions",
            "MASQUERADE_HOOK",
        ):
            assert text in text_of(message)
        assert self.backend not in text_of(message)

    def test_p22_check_warns_about_a_user_model_that_grants_permissions_without_listing_the_permissions(
        self, monkeypatch
    ):
        monkeypatch.setattr(get_user_model(), "has_perm", lambda self, perm, obj=None: True)

        assert "auth.User" in text_of(run()["W013"])

    @pytest.mark.parametrize(
        "backends",
        [
            [],
            ["django.contrib.auth.backends.RemoteUserBackend", "tests.test_checks.Listing"],
            ["tests.no_such.Backend"],
        ],
    )
    def test_check_does_not_warn_about_missing_backends_or_backends_that_list_their_permissions(self, backends):
        with override_settings(AUTHENTICATION_BACKENDS=backends):
            assert run() == {}

    def test_check_accepts_any_backend_if_masquerade_hook_replaces_the_comparison_of_permissions(self):
        with override_settings(
            AUTHENTICATION_BACKENDS=["tests.test_checks.OnlyHasPerm"], **instaccess(MASQUERADE_HOOK="operator.eq")
        ):
            assert run() == {}


class TestTheIssuingScope:
    def test_check_does_not_report_a_missing_issuing_scope_if_the_project_has_its_own_scopes_backend(self):
        with override_settings(OAUTH2_PROVIDER={"SCOPES_BACKEND_CLASS": "project.scopes.Backend"}):
            assert "E006" not in run()

    def test_check_reports_a_missing_issuing_scope_if_the_project_has_no_oauth2_settings(self, settings):
        del settings.OAUTH2_PROVIDER

        assert "E006" in run()
        assert "W003" in run(deploy=True)


class TestTheDeploymentCheck:
    @pytest.mark.parametrize("check_id", DEPLOYMENT_WARNINGS)
    def test_deployment_check_reports_each_problem_and_names_the_setting_to_change(self, check_id):
        settings, names = DEPLOYMENT_WARNINGS[check_id]

        with override_settings(**settings):
            messages = run(deploy=True)

        assert list(messages) == [check_id]
        assert messages[check_id].level < ERROR
        assert [name for name in names if name not in text_of(messages[check_id])] == []

    @pytest.mark.parametrize("check_id", DEPLOYMENT_WARNINGS)
    def test_check_prints_no_deployment_warning_in_development(self, check_id):
        with override_settings(**DEPLOYMENT_WARNINGS[check_id][0]):
            assert run() == {}

    def test_o14_deployment_check_reports_jwcrypto_below_1_6_1_as_an_error(self, tmp_path, monkeypatch):
        metadata = tmp_path / "jwcrypto-1.5.6.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text("Metadata-Version: 2.1\nName: jwcrypto\nVersion: 1.5.6\n")
        monkeypatch.syspath_prepend(tmp_path)

        assert run() == {}
        message = run(deploy=True)["E007"]
        assert message.level == ERROR
        assert "1.5.6" in message.msg
        assert "pip install" in message.hint

    @pytest.mark.parametrize("version", ["1.6.1", "1.6.2", "1.10.0", "2.0", "1.6.1.post1"])
    def test_o14_deployment_check_accepts_jwcrypto_1_6_1_and_later(self, version, tmp_path, monkeypatch):
        metadata = tmp_path / f"jwcrypto-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: jwcrypto\nVersion: {version}\n")
        monkeypatch.syspath_prepend(tmp_path)

        assert run(deploy=True) == {}

    @pytest.mark.parametrize("default_scopes", [["__all__"], ["read", SCOPE], (SCOPE,)])
    def test_o14_check_warns_about_the_issuing_scope_among_the_default_scopes(self, default_scopes):
        with override_settings(OAUTH2_PROVIDER={"SCOPES": SCOPES, "DEFAULT_SCOPES": default_scopes}):
            assert list(run()) == list(run(deploy=True)) == ["W003"]

    @pytest.mark.parametrize("urls", ["instaccess.issuer.urls_internal", "instaccess.service.urls"])
    def test_redirected_probes_of_an_issuer_or_a_service_get_a_warning(self, urls):
        with override_settings(ROOT_URLCONF=urls, SECURE_REDIRECT_EXEMPT=[]):
            message = run(deploy=True)["W031"]
            assert run() == {}
        with override_settings(ROOT_URLCONF=urls, SECURE_REDIRECT_EXEMPT=[r"^internal/"]):
            assert run(deploy=True) == {}

        assert message.level == WARNING
        assert "SECURE_REDIRECT_EXEMPT" in message.hint

    @pytest.mark.parametrize("hosts", [["*"], [".example.edu"], ["canvas.example.edu", ".example.edu"]])
    @pytest.mark.parametrize("account", [{"ACCOUNT_UUID": "account-1"}, {"ACCOUNT_HOOK": str.upper}])
    def test_deployment_check_accepts_wildcard_hosts_if_the_account_is_not_derived_from_the_host(
        self, hosts, account
    ):
        with override_settings(ALLOWED_HOSTS=hosts):
            assert list(run(deploy=True)) == ["W006"]
            with override_settings(**instaccess(**account)):
                assert run(deploy=True) == {}

    def test_o14_deployment_check_accepts_a_proxy_that_terminates_tls(self):
        with override_settings(
            SECURE_SSL_REDIRECT=False, SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")
        ):
            assert run(deploy=True) == {}

    def test_deployment_check_accepts_secret_key_after_a_generated_key_encryption_key(self):
        keys = [secrets.token_urlsafe(32), "SECRET_KEY"]
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": keys}):
            assert run(deploy=True) == {}


@pytest.mark.django_db
class TestTheKeysInTheDatabase:
    def test_k5_check_reports_missing_keys_and_names_the_command_instaccess_init(self):
        message = run(databases=["default"])["W008"]

        assert "instaccess_init" in message.hint
        for missing in ("current signing key", "future signing key", "current encryption key"):
            assert missing in message.msg

    def test_k8_check_reports_a_missing_encryption_key(self, initial_keys):
        Key.objects.filter(use=Key.Use.ENCRYPTION).delete()

        assert run(databases=["default"])["W008"].msg == "There is no current encryption key."

    def test_o6_check_reports_keys_that_cannot_be_unsealed_and_changes_no_key(self, initial_keys):
        before = list(Key.objects.order_by("pk").values())

        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": [secrets.token_urlsafe(32)]}):
            messages = run(databases=["default"])

        assert list(messages) == ["E008"]
        assert messages["E008"].level == ERROR
        assert "INSTACCESS['KEY_ENCRYPTION_KEYS']" in messages["E008"].msg
        assert list(Key.objects.order_by("pk").values()) == before

    def test_k7_check_reports_swapped_private_keys_with_the_id_of_the_key(self, initial_keys):
        one, two = Key.objects.filter(use=Key.Use.SIGNING).order_by("pk")
        Key.objects.filter(pk=one.pk).update(sealed_private_jwk=two.sealed_private_jwk)

        message = run(databases=["default"])["E008"]

        assert one.kid in message.msg
        assert two.sealed_private_jwk not in text_of(message)

    def test_k17_check_names_the_key_whose_row_was_modified_and_the_command_to_run(self, initial_keys):
        key = initial_keys[0]
        Key.objects.filter(pk=key.pk).update(alg="odd")

        message = run(databases=["default"])["E055"]

        assert message.level == ERROR
        assert f"instaccess_keys revoke --kid {key.kid}" in message.msg
        assert "Find out who modified the database" in message.hint

    def test_check_reads_the_keys_only_if_a_database_is_checked(self):
        assert run(databases=None) == {}
        assert run(databases=[]) == {}

    def test_check_of_the_keys_does_not_report_an_invalid_setting_again(self, initial_keys):
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": []}):
            assert list(run(databases=["default"])) == ["E023"]


@pytest.mark.django_db(transaction=True)
class TestAnUnavailableDatabase:
    def test_o1_check_reports_an_unavailable_database_as_an_error(self):
        def fail(*args: Any) -> Any:
            raise OperationalError("could not connect")

        with connection.execute_wrapper(fail):
            messages = run(databases=["default"])

        assert list(messages) == ["E009"]
        assert "'default'" in messages["E009"].msg


@pytest.mark.django_db(transaction=True)
class TestADatabaseWithoutTables:
    def test_check_accepts_a_database_without_tables_because_migrate_runs_the_check_first(self):
        with connection.schema_editor() as editor:
            editor.alter_db_table(Key, "instaccess_key", "instaccess_key_away")
        try:
            assert run(databases=["default"]) == {}
        finally:
            with connection.schema_editor() as editor:
                editor.alter_db_table(Key, "instaccess_key_away", "instaccess_key")


@pytest.mark.django_db
class TestTheCheckCommand:
    def test_check_command_fails_and_prints_how_to_change_an_invalid_setting(self):
        with override_settings(**instaccess(LIFETIME=7200)), pytest.raises(SystemCheckError) as error:
            call_command("check", "--database", "default")

        assert "(instaccess.E011) INSTACCESS['LIFETIME'] must be an integer from 1 to 3600" in str(error.value)
