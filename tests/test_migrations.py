"""Tests that the migrations match the models and can be reversed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from instaccess.issuer import issuing
from instaccess.keys import provision, ring
from instaccess.models import IssuedToken, Key, KeyLock, ServiceUser, UserIdentity
from instaccess.tokens import jose
from tests.support.paths import ROOT

ORIGIN = issuing.Origin(canvas_domain="canvas.example.edu")
TABLES = {model._meta.db_table for model in (IssuedToken, Key, KeyLock, ServiceUser, UserIdentity)}


def manage(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "django", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.django_db
class TestTheMigrations:
    def test_the_migrations_contain_every_change_of_the_models(self):
        # Check with the default Application model. `TestAProjectWithItsOwnModels` uses other models.
        assert not hasattr(settings, "OAUTH2_PROVIDER_APPLICATION_MODEL")
        out = io.StringIO()

        call_command("makemigrations", "instaccess", check_changes=True, dry_run=True, stdout=out)

        assert out.getvalue().strip() == "No changes detected in app 'instaccess'"

    def test_models_of_this_app_need_no_migration_in_other_apps(self):
        out = io.StringIO()

        call_command("makemigrations", check_changes=True, dry_run=True, stdout=out)

        assert out.getvalue().strip() == "No changes detected"

    def test_exactly_one_migration_of_this_app_has_no_later_migration(self):
        assert len(MigrationLoader(connection).graph.leaf_nodes("instaccess")) == 1


class TestAProjectWithItsOwnModels:
    @pytest.fixture
    def project(self, tmp_path: Path) -> dict[str, str]:
        """Create a project with its own user and application models, and return the environment of its commands."""
        (tmp_path / "own_apps").mkdir()
        (tmp_path / "own_apps" / "__init__.py").touch()
        (tmp_path / "own_apps" / "models.py").write_text(
            "from django.contrib.auth.models import AbstractUser\n"
            "from oauth2_provider.models import AbstractApplication\n"
            "class Person(AbstractUser):\n    pass\n"
            "class Tool(AbstractApplication):\n    pass\n"
        )
        databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "own.sqlite3")}}
        (tmp_path / "own_settings.py").write_text(
            "from testproject.settings import *\n"
            'INSTALLED_APPS = ["own_apps", *INSTALLED_APPS]\n'
            'AUTH_USER_MODEL = "own_apps.Person"\n'
            'OAUTH2_PROVIDER_APPLICATION_MODEL = "own_apps.Tool"\n'
            f"DATABASES = {databases!r}\n"
            'DEFAULT_AUTO_FIELD = "django.db.models.AutoField"\n'
        )
        return {"DJANGO_SETTINGS_MODULE": "own_settings", "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}

    def test_a_project_with_its_own_models_needs_no_new_migration(self, project):
        generated = manage("makemigrations", "own_apps", **project)
        assert generated.returncode == 0, generated.stderr

        checked = manage("makemigrations", "instaccess", "--check", "--dry-run", **project)
        assert (checked.returncode, checked.stdout.strip()) == (0, "No changes detected in app 'instaccess'")

        migrated = manage("migrate", "--verbosity", "0", **project)
        assert (migrated.returncode, migrated.stdout, migrated.stderr) == (0, "", "")

        initialized = manage("instaccess_init", **project)
        assert initialized.returncode == 0, initialized.stderr
        assert initialized.stdout.count("Generated the ") == 3


@pytest.mark.django_db(transaction=True)
class TestMigratingBack:
    def test_migrating_to_zero_and_forward_again_leaves_a_working_database(self, initial_keys: Any):
        assert set(connection.introspection.table_names()) >= TABLES
        try:
            call_command("migrate", "instaccess", "zero", verbosity=0, interactive=False)
            assert not TABLES & set(connection.introspection.table_names())
        finally:
            call_command("migrate", verbosity=0, interactive=False)

        assert set(connection.introspection.table_names()) >= TABLES
        assert Key.objects.count() == 0
        assert len(provision.init()) == 3

    def test_migrating_to_zero_is_refused_while_the_audit_log_has_rows(self, initial_keys: Any, user: Any):
        row, _ = issuing.issue(user=user, origin=ORIGIN, now=time.time())

        with pytest.raises(CommandError, match="INSTACCESS_DELETE_AUDIT_LOG=yes") as refusal:
            call_command("migrate", "instaccess", "zero", verbosity=0, interactive=False)

        assert "instaccess_tokens export" in str(refusal.value)
        assert IssuedToken.objects.get() == row
        assert Key.objects.count() == 3
        assert MigrationRecorder(connection).applied_migrations().keys() >= {("instaccess", "0001_initial")}

    def test_audit_log_is_not_deleted_if_instaccess_delete_audit_log_is_not_yes(
        self, initial_keys: Any, user: Any, monkeypatch: Any
    ):
        issuing.issue(user=user, origin=ORIGIN, now=time.time())
        monkeypatch.setenv("INSTACCESS_DELETE_AUDIT_LOG", "no")

        with pytest.raises(CommandError, match="Nothing was deleted"):
            call_command("migrate", "instaccess", "zero", verbosity=0, interactive=False)

    def test_o15_keys_and_tokens_work_after_dumpdata_and_loaddata(
        self, initial_keys: Any, user: Any, tmp_path: Path, monkeypatch: Any
    ):
        monkeypatch.setenv("INSTACCESS_DELETE_AUDIT_LOG", "yes")
        row, token = issuing.issue(user=user, origin=ORIGIN, now=time.time())
        dump = tmp_path / "instaccess.json"
        call_command("dumpdata", "instaccess", output=str(dump), verbosity=0)
        try:
            call_command("migrate", "instaccess", "zero", verbosity=0, interactive=False)
        finally:
            call_command("migrate", verbosity=0, interactive=False)

        call_command("loaddata", str(dump), verbosity=0)

        ring.clear_cache()
        provision.check_sealed_keys()
        assert provision.missing_keys() == []
        signed, _ = jose.decrypt(token, ring.current_ring().decryption_keys())
        payload, _ = jose.verify(signed, ring.current_ring().verification_keys())
        assert payload["jti"] == str(IssuedToken.objects.get().jti) == str(row.jti)
        assert issuing.issue(user=user, origin=ORIGIN, now=time.time())[0].user_uuid == row.user_uuid
