"""A script that issues and uses tokens at two schools with separate schemas, and prints the results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from tests.support import subproject


@contextmanager
def empty_database() -> Iterator[None]:
    """Create an empty database, and drop the database when the context ends.

    If a database of an earlier run exists, because the run was killed, drop this database first.
    """
    import psycopg
    from django.conf import settings

    database = settings.DATABASES["default"]
    server = {"host": database["HOST"], "user": database["USER"], "password": database["PASSWORD"]}
    with psycopg.connect(**server, dbname="postgres", autocommit=True) as connection:
        drop = f'DROP DATABASE IF EXISTS "{database["NAME"]}" WITH (FORCE)'
        connection.execute(drop)
        connection.execute(f'CREATE DATABASE "{database["NAME"]}"')
        try:
            yield
        finally:
            connection.execute(drop)


def main() -> None:
    import django

    with empty_database():
        django.setup()
        subproject.print_result(ask())


def ask() -> dict[str, Any]:
    from django.contrib.auth import get_user_model
    from django.core.checks import run_checks
    from django.core.management import call_command
    from django.db import connection
    from django.test import Client
    from django.utils import timezone
    from oauth2_provider.models import get_access_token_model, get_application_model

    from instaccess.conf import SCOPE
    from instaccess.models import IssuedToken
    from tests.projects.tenants.schools.models import Domain, School

    call_command("migrate_schemas", shared=True, run_syncdb=True, verbosity=0, interactive=False)
    call_command("instaccess_init", verbosity=0)
    hosts = {"north": "north.example.edu", "south": "south.example.edu"}
    for name, host in hosts.items():
        school = School(schema_name=name)
        school.save(verbosity=0)
        Domain.objects.create(domain=host, tenant=school, is_primary=True)
    application = get_application_model().objects.create(
        client_type="confidential",
        authorization_grant_type="authorization-code",
        redirect_uris="https://tool.example/callback",
    )
    for name in hosts:
        get_access_token_model().objects.create(
            user=get_user_model().objects.create_user(name),
            application=application,
            token=name,
            scope=SCOPE,
            expires=timezone.now() + timedelta(hours=1),
        )
    client = Client()

    def call(method: str, name: str, path: str, token: str):
        headers = {"Host": hosts[name], "Authorization": f"Bearer {token}"}
        return client.generic(method, path, headers=headers)

    answers = {"checks": [str(message) for message in run_checks()]}
    tokens, signed = {}, {}
    for name in hosts:
        tokens[name] = call("POST", name, "/api/v1/inst_access_tokens", name).json()["token"]
        verified = call("GET", name, "/internal/gateway/verify", tokens[name])
        signed[name] = verified["Authorization"].removeprefix("Bearer ")
        answers[name] = {}
    for name, other in (("north", "south"), ("south", "north")):
        answers[name]["own"] = call("GET", name, "/whoami", signed[name]).json()
        answers[name]["other's"] = call("GET", name, "/whoami", signed[other]).status_code
    connection.set_schema_to_public()
    answers["rows"] = list(IssuedToken.objects.order_by("issued_at").values_list("user__username", "account_uuid"))
    with connection.cursor() as cursor:
        cursor.execute("SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema !~ '^pg_'")
        tables = [(schema, table) for schema, table in cursor.fetchall() if table.startswith("instaccess_")]
    answers["schemas"] = sorted({schema for schema, _ in tables})
    call_command("instaccess_tokens", "revoke", user="north", reason="laptop lost", json=True)
    for name in hosts:
        answers[name]["after the revocation"] = {
            host: call("GET", host, "/internal/gateway/verify", tokens[name]).status_code for host in hosts
        }
    connection.close()
    return answers


if __name__ == "__main__":
    main()
