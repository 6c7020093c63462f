"""The tenant models of django-tenants: schools with their domains."""

from django_tenants.models import DomainMixin, TenantMixin


class School(TenantMixin):
    pass


class Domain(DomainMixin):
    pass
