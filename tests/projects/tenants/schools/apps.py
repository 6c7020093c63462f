from django.apps import AppConfig


class SchoolsConfig(AppConfig):
    name = "tests.projects.tenants.schools"
    default_auto_field = "django.db.models.BigAutoField"
