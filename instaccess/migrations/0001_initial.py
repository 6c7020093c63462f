import os
import uuid
from typing import Any

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.core.management.base import CommandError
from django.db import migrations, models

APPLICATION_MODEL = getattr(settings, "OAUTH2_PROVIDER_APPLICATION_MODEL", "oauth2_provider.Application")

DELETE_AUDIT_LOG = "INSTACCESS_DELETE_AUDIT_LOG"
"""The environment variable that allows `migrate instaccess zero` to delete the audit log."""


def refuse_to_delete_the_audit_log(apps: Any, schema_editor: Any) -> None:
    """Raise CommandError if the audit log has rows and the operator has not allowed their deletion.

    Runs before the other operations of this migration are reversed, so a refusal deletes nothing.
    """
    alias = schema_editor.connection.alias
    has_rows = apps.get_model("instaccess", "IssuedToken").objects.using(alias).exists()
    if has_rows and os.environ.get(DELETE_AUDIT_LOG) != "yes":
        raise CommandError(
            f"The audit log in database {alias!r} has rows. This migration deletes the audit log and all keys. Nothing "
            "was deleted. First export the rows: manage.py instaccess_tokens export --format jsonl --file FILE. Then "
            f"delete the tables: {DELETE_AUDIT_LOG}=yes manage.py migrate instaccess zero"
        )


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        migrations.swappable_dependency(APPLICATION_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Checkpoint",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.BigIntegerField(unique=True, verbose_name="number")),
                ("jws", models.TextField(verbose_name="signed statement")),
                ("index", models.TextField(verbose_name="index of rows")),
                ("mac", models.CharField(max_length=64, verbose_name="authentication code")),
            ],
            options={
                "verbose_name": "checkpoint",
                "verbose_name_plural": "checkpoints",
                "ordering": ["number"],
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="IncidentReview",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.BigIntegerField(unique=True, verbose_name="number")),
                ("jws", models.TextField(verbose_name="signed statement")),
                ("problems", models.TextField(verbose_name="reviewed problems")),
                ("mac", models.CharField(max_length=64, verbose_name="authentication code")),
            ],
            options={
                "verbose_name": "review of an incident",
                "verbose_name_plural": "reviews of incidents",
                "ordering": ["number"],
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="Key",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kid",
                    models.CharField(
                        help_text="RFC 7638 thumbprint of the public key.",
                        max_length=64,
                        unique=True,
                        verbose_name="key id",
                    ),
                ),
                (
                    "use",
                    models.CharField(
                        choices=[("sig", "signing"), ("enc", "encryption")], max_length=3, verbose_name="use"
                    ),
                ),
                ("alg", models.CharField(blank=True, max_length=16, verbose_name="algorithm")),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("future", "future"),
                            ("current", "current"),
                            ("past", "past"),
                            ("revoked", "revoked"),
                        ],
                        max_length=8,
                        verbose_name="status",
                    ),
                ),
                ("public_jwk", models.JSONField(verbose_name="public key")),
                (
                    "sealed_private_jwk",
                    models.TextField(
                        blank=True,
                        help_text="JWE encrypted with a key-encryption key. Empty if only the public key is stored.",
                        verbose_name="sealed private key",
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="created")),
                ("activated_at", models.DateTimeField(blank=True, null=True, verbose_name="activated")),
                ("retired_at", models.DateTimeField(blank=True, null=True, verbose_name="retired")),
                ("revoked_at", models.DateTimeField(blank=True, null=True, verbose_name="revoked")),
                (
                    "mac",
                    models.CharField(
                        blank=True,
                        help_text="HMAC of this row, with a key derived from the key-encryption key.",
                        max_length=64,
                        verbose_name="authentication code",
                    ),
                ),
                (
                    "current_use",
                    models.GeneratedField(
                        db_persist=True,
                        expression=models.Case(
                            models.When(models.Q(("status", "current")), then=models.F("use")),
                            default=models.Value(None),
                        ),
                        output_field=models.CharField(max_length=3, null=True),
                        unique=True,
                    ),
                ),
            ],
            options={
                "verbose_name": "key",
                "verbose_name_plural": "keys",
                "ordering": ["use", "-created_at"],
                "permissions": [
                    ("manage_keys", "Can generate, rotate and revoke keys, and import encryption keys"),
                    ("import_signing_keys", "Can import signing keys, and so issue tokens as any user"),
                ],
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="KeyLock",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("changes", models.BigIntegerField(default=0)),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="PruneMarker",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "number",
                    models.BigIntegerField(
                        help_text="The last checkpoint that was pruned.", unique=True, verbose_name="number"
                    ),
                ),
                ("jws", models.TextField(verbose_name="signed statement")),
                ("mac", models.CharField(max_length=64, verbose_name="authentication code")),
            ],
            options={
                "verbose_name": "prune marker",
                "verbose_name_plural": "prune markers",
                "ordering": ["number"],
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="Revocation",
            fields=[
                ("number", models.BigIntegerField(primary_key=True, serialize=False)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("tokens", "Tokens"),
                            ("user", "User"),
                            ("account", "Account"),
                            ("key", "Key"),
                            ("all", "All"),
                        ],
                        max_length=8,
                    ),
                ),
                ("value", models.CharField(blank=True, max_length=255)),
                ("latest_iat", models.BigIntegerField(null=True)),
                ("revoked_at", models.DateTimeField()),
                ("revoked_by", models.CharField(blank=True, max_length=255)),
                ("reason", models.CharField(blank=True, max_length=255)),
                ("completed_at", models.DateTimeField(null=True)),
                ("mac", models.CharField(blank=True, max_length=64)),
            ],
            options={
                "ordering": ["number"],
                "default_permissions": (),
                "indexes": [models.Index(fields=["kind", "number"], name="instaccess_revocation_kind")],
            },
        ),
        migrations.CreateModel(
            name="RevocationLock",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("last_number", models.BigIntegerField(default=0)),
            ],
            options={
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="UserIdentity",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="instaccess_identity",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
                ("uuid", models.UUIDField(default=uuid.uuid4, editable=False, unique=True, verbose_name="uuid")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="created")),
            ],
            options={
                "verbose_name": "user identity",
                "verbose_name_plural": "user identities",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="MaintenanceRun",
            fields=[
                (
                    "command",
                    models.CharField(max_length=16, primary_key=True, serialize=False, verbose_name="command"),
                ),
                ("started_at", models.DateTimeField(verbose_name="started")),
                ("finished_at", models.DateTimeField(null=True, verbose_name="finished")),
                (
                    "result",
                    models.CharField(
                        choices=[("running", "running"), ("succeeded", "succeeded"), ("failed", "failed")],
                        max_length=9,
                        verbose_name="result",
                    ),
                ),
                ("succeeded_at", models.DateTimeField(null=True, verbose_name="last success")),
            ],
            options={
                "verbose_name": "maintenance run",
                "verbose_name_plural": "maintenance runs",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="RefusalCount",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("hour", models.DateTimeField(verbose_name="hour")),
                (
                    "role",
                    models.CharField(
                        choices=[("issuer", "issuer"), ("gateway", "gateway")], max_length=8, verbose_name="role"
                    ),
                ),
                ("reason", models.CharField(max_length=64, verbose_name="reason")),
                ("client_id", models.CharField(blank=True, max_length=255, verbose_name="client id")),
                ("user_uuid", models.CharField(blank=True, max_length=255, verbose_name="user uuid")),
                ("count", models.BigIntegerField(default=0, verbose_name="count")),
            ],
            options={
                "verbose_name": "refusals",
                "verbose_name_plural": "refusals",
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("hour", "role", "reason", "client_id", "user_uuid"),
                        name="instaccess_refusals_of_an_hour",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="ServiceUser",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name="created"),
                ),
                (
                    "application",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="instaccess_service_user",
                        to=APPLICATION_MODEL,
                        verbose_name="application",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "service user",
                "verbose_name_plural": "service users",
            },
        ),
        migrations.CreateModel(
            name="IssuedToken",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("jti", models.UUIDField(unique=True, verbose_name="token id")),
                ("user_uuid", models.CharField(max_length=255, verbose_name="user uuid")),
                (
                    "user_name",
                    models.CharField(
                        blank=True,
                        help_text="User name at the time of issue. Empty if INSTACCESS['AUDIT_USER_NAMES'] was False.",
                        max_length=255,
                        verbose_name="user name",
                    ),
                ),
                ("real_user_uuid", models.CharField(blank=True, max_length=255, verbose_name="real user uuid")),
                (
                    "real_user_name",
                    models.CharField(blank=True, max_length=255, verbose_name="name of the real user"),
                ),
                ("client_id", models.CharField(blank=True, max_length=255, verbose_name="client id")),
                (
                    "access_token_pk",
                    models.CharField(
                        blank=True,
                        help_text="Primary key of the OAuth2 access token that was exchanged.",
                        max_length=64,
                        verbose_name="access token",
                    ),
                ),
                ("account_uuid", models.CharField(max_length=255, verbose_name="account uuid")),
                ("canvas_domain", models.CharField(max_length=262, verbose_name="domain")),
                ("signing_kid", models.CharField(max_length=64, verbose_name="signing key")),
                ("encryption_kid", models.CharField(blank=True, max_length=64, verbose_name="encryption key")),
                ("ip_address", models.GenericIPAddressField(null=True, verbose_name="address")),
                ("user_agent", models.CharField(blank=True, max_length=512, verbose_name="user agent")),
                ("issued_at", models.DateTimeField(db_index=True, verbose_name="issued")),
                ("expires_at", models.DateTimeField(verbose_name="expires")),
                ("revoked_at", models.DateTimeField(null=True, verbose_name="revoked")),
                (
                    "revoked_by",
                    models.CharField(
                        blank=True,
                        help_text="Name of the user or command that revoked the token, at the time of the revocation.",
                        max_length=255,
                        verbose_name="revoked by",
                    ),
                ),
                ("revocation_reason", models.CharField(blank=True, max_length=255, verbose_name="reason")),
                (
                    "mac",
                    models.CharField(
                        blank=True,
                        help_text="HMAC of this row, with a key derived from the key-encryption key.",
                        max_length=64,
                        verbose_name="authentication code",
                    ),
                ),
                (
                    "names_mac",
                    models.CharField(
                        blank=True,
                        help_text=(
                            "HMAC of the user names, separate from the HMAC of the row, so that names can be erased."
                        ),
                        max_length=64,
                        verbose_name="authentication code of the user names",
                    ),
                ),
                (
                    "application",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=APPLICATION_MODEL,
                        verbose_name="application",
                    ),
                ),
                (
                    "real_user",
                    models.ForeignKey(
                        help_text="The user who requested the token, if the token is for another user (masquerade).",
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="real user",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
            ],
            options={
                "verbose_name": "issued token",
                "verbose_name_plural": "issued tokens",
                "permissions": [
                    ("masquerade", "Can get InstAccess tokens for other users"),
                    ("revoke_tokens", "Can revoke issued tokens"),
                    ("inspect_tokens", "Can decrypt and inspect InstAccess tokens"),
                ],
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(fields=["client_id", "issued_at"], name="instaccess_client_issued"),
                    models.Index(fields=["account_uuid", "issued_at"], name="instaccess_account_issued"),
                    models.Index(fields=["user_uuid"], name="instaccess_user_uuid"),
                    models.Index(fields=["real_user_uuid"], name="instaccess_real_user_uuid"),
                    models.Index(fields=["user_name"], name="instaccess_user_name"),
                    models.Index(fields=["real_user_name"], name="instaccess_real_user_name"),
                    models.Index(fields=["ip_address"], name="instaccess_address"),
                    models.Index(fields=["revoked_at"], name="instaccess_revoked"),
                ],
            },
        ),
        # Keep this operation last. Django reverses the last operation first, so a refusal comes before any table is
        # deleted.
        migrations.RunPython(migrations.RunPython.noop, refuse_to_delete_the_audit_log),
    ]
