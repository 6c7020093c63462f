"""The hook that returns the account of each school."""

from tests.projects.tenants.schools.models import Domain


def account_of(host: str) -> str:
    return f"account-of-{Domain.objects.get(domain=host).tenant.schema_name}"
