"""Tests of one PostgreSQL schema per tenant (django-tenants), where all tenants must share the tables of the app."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from tests.support import subproject
from tests.support.paths import ROOT

pytestmark = [pytest.mark.services, pytest.mark.own_database]

HOSTS = ("north", "south")


@pytest.fixture(scope="module")
def answers() -> Any:
    return subproject.run_with_question(
        "tests.projects.tenants.ask", settings="tests.projects.tenants.settings", question=None, database="postgresql"
    )


class TestTenantsThatShareTheTables:
    def test_k18_all_tables_of_the_app_are_in_the_shared_schema_and_no_check_reports_a_problem(self, answers):
        assert answers["schemas"] == ["public"]
        assert answers["checks"] == []

    def test_k18_each_tenant_issues_tokens_for_its_own_account_into_one_audit_log(self, answers):
        assert answers["rows"] == [["north", "account-of-north"], ["south", "account-of-south"]]

    @pytest.mark.parametrize("name", HOSTS)
    def test_k18_a_service_accepts_the_tokens_of_its_tenant_and_refuses_tokens_of_another_tenant(self, answers, name):
        assert answers[name]["own"]["account"] == f"account-of-{name}"
        assert answers[name]["other's"] == 401

    def test_k18_a_revocation_takes_effect_at_the_gateways_of_all_tenants(self, answers):
        assert answers["north"]["after the revocation"] == {"north": 401, "south": 401}
        assert answers["south"]["after the revocation"] == {"north": 204, "south": 204}


def test_k18_check_refuses_tables_in_the_schema_of_each_tenant_of_django_tenants():
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.projects.tenants.settings_per_tenant",
        "INSTACCESS_DATABASE": "postgresql",
    }
    done = subprocess.run(
        [sys.executable, "-m", "django", "check"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    assert "(instaccess.E060)" in done.stderr
    assert "would have tables in each schema: instaccess, oauth2_provider." in done.stderr
