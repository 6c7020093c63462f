"""The tables: keys, issued tokens, revocations, refusal counts, maintenance runs, user uuids, and service users.

The models contain no logic. The `keys` package writes keys. The `audit` package writes issued tokens, revocations,
checkpoints, prune markers, reviews, refusal counts and maintenance runs. The `users` module writes user identities.
Operators add service users in the admin.
"""

from __future__ import annotations

import uuid
from datetime import UTC

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.models import Case, F, Q, Value, When
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

# Without this check, Django would print a traceback of thirty lines about a model without `app_label`.
for _app in ("instaccess", "oauth2_provider"):
    if not apps.is_installed(_app):
        raise ImproperlyConfigured(
            f"an issuer needs {_app!r}: add {_app!r} to INSTALLED_APPS. For a separate gateway, list "
            '"instaccess.gateway" in INSTALLED_APPS instead of "instaccess", and use '
            'include("instaccess.gateway.urls") in the URLconf. For a separate service, list "instaccess.service" '
            'instead of "instaccess", and use include("instaccess.service.urls"). See docs/installation.md'
        )

APPLICATION_MODEL: str = getattr(settings, "OAUTH2_PROVIDER_APPLICATION_MODEL", "oauth2_provider.Application")


class Key(models.Model):
    """An RSA key pair, or a public key alone. The private key is sealed, that is, encrypted at rest."""

    class Use(models.TextChoices):
        SIGNING = "sig", _("signing")
        ENCRYPTION = "enc", _("encryption")

    class Status(models.TextChoices):
        FUTURE = "future", pgettext_lazy("status of a key", "future")
        CURRENT = "current", pgettext_lazy("status of a key", "current")
        PAST = "past", pgettext_lazy("status of a key", "past")
        REVOKED = "revoked", pgettext_lazy("status of a key", "revoked")

    kid = models.CharField(
        _("key id"), max_length=64, unique=True, help_text=_("RFC 7638 thumbprint of the public key.")
    )
    use = models.CharField(_("use"), max_length=3, choices=Use.choices)
    alg = models.CharField(_("algorithm"), max_length=16, blank=True)
    status = models.CharField(_("status"), max_length=8, choices=Status.choices)
    public_jwk = models.JSONField(_("public key"))
    sealed_private_jwk = models.TextField(
        _("sealed private key"),
        blank=True,
        help_text=_("JWE encrypted with a key-encryption key. Empty if only the public key is stored."),
    )
    created_at = models.DateTimeField(_("created"), default=timezone.now)
    activated_at = models.DateTimeField(_("activated"), null=True, blank=True)
    retired_at = models.DateTimeField(_("retired"), null=True, blank=True)
    revoked_at = models.DateTimeField(pgettext_lazy("time", "revoked"), null=True, blank=True)
    mac = models.CharField(
        _("authentication code"),
        max_length=64,
        blank=True,
        help_text=_("HMAC of this row, with a key derived from the key-encryption key."),
    )
    # This column equals `use` if the key is current, and is NULL otherwise. A unique index allows many NULLs, so the
    # index rejects only a second current key with the same `use`. A conditional unique constraint is not used,
    # because MariaDB doesn't support conditions.
    current_use = models.GeneratedField(
        expression=Case(When(Q(status="current"), then=F("use")), default=Value(None)),
        output_field=models.CharField(max_length=3, null=True),
        db_persist=True,
        unique=True,
    )

    class Meta:
        verbose_name = _("key")
        verbose_name_plural = _("keys")
        ordering = ["use", "-created_at"]
        default_permissions = ("view",)
        permissions = [
            ("manage_keys", "Can generate, rotate and revoke keys, and import encryption keys"),
            # This permission is separate, because services accept every token that the owner of a signing key signs.
            ("import_signing_keys", "Can import signing keys, and so issue tokens as any user"),
        ]

    def __str__(self) -> str:
        return f"{self.use} {self.kid} ({self.status})"

    @property
    def has_private(self) -> bool:
        """Whether the private key is stored."""
        return bool(self.sealed_private_jwk)


class KeyLock(models.Model):
    """A table with a single row, which is a write lock for keys.

    Every transaction that changes keys first updates the row. This kind of lock works on every database.
    """

    changes = models.BigIntegerField(default=0)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.changes} key changes"


class IssuedToken(models.Model):
    """The audit row of one issued token, committed before the token is returned.

    The row never contains the token or a digest of the token. The uuids and names of users, and the ids of
    applications, are also stored as strings. The row therefore stays readable after a user or an application has been
    deleted.

    `audit/row_ids.py` computes the id. If the database assigned the id, the HMAC of the row couldn't cover the id,
    because the HMAC is computed before the row is inserted.
    """

    jti = models.UUIDField(_("token id"), unique=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
    )
    user_uuid = models.CharField(_("user uuid"), max_length=255)
    user_name = models.CharField(
        _("user name"),
        max_length=255,
        blank=True,
        help_text=_("User name at the time of issue. Empty if INSTACCESS['AUDIT_USER_NAMES'] was False."),
    )
    real_user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("real user"),
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        help_text=_("The user who requested the token, if the token is for another user (masquerade)."),
    )
    real_user_uuid = models.CharField(_("real user uuid"), max_length=255, blank=True)
    real_user_name = models.CharField(_("name of the real user"), max_length=255, blank=True)
    application = models.ForeignKey(
        APPLICATION_MODEL,
        verbose_name=_("application"),
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
    )
    client_id = models.CharField(_("client id"), max_length=255, blank=True)
    access_token_pk = models.CharField(
        _("access token"),
        max_length=64,
        blank=True,
        help_text=_("Primary key of the OAuth2 access token that was exchanged."),
    )
    account_uuid = models.CharField(_("account uuid"), max_length=255)
    canvas_domain = models.CharField(_("domain"), max_length=262)
    signing_kid = models.CharField(_("signing key"), max_length=64)
    encryption_kid = models.CharField(_("encryption key"), max_length=64, blank=True)
    ip_address = models.GenericIPAddressField(_("address"), null=True)
    user_agent = models.CharField(_("user agent"), max_length=512, blank=True)
    issued_at = models.DateTimeField(_("issued"), db_index=True)
    expires_at = models.DateTimeField(_("expires"))
    revoked_at = models.DateTimeField(pgettext_lazy("time", "revoked"), null=True)
    revoked_by = models.CharField(
        _("revoked by"),
        max_length=255,
        blank=True,
        help_text=_("Name of the user or command that revoked the token, at the time of the revocation."),
    )
    revocation_reason = models.CharField(_("reason"), max_length=255, blank=True)
    mac = models.CharField(
        _("authentication code"),
        max_length=64,
        blank=True,
        help_text=_("HMAC of this row, with a key derived from the key-encryption key."),
    )
    names_mac = models.CharField(
        _("authentication code of the user names"),
        max_length=64,
        blank=True,
        help_text=_("HMAC of the user names, separate from the HMAC of the row, so that names can be erased."),
    )

    class Meta:
        verbose_name = _("issued token")
        verbose_name_plural = _("issued tokens")
        # Only `issuer.issue` adds rows, so there are no permissions to add, change or delete a row.
        default_permissions = ("view",)
        permissions = [
            ("masquerade", "Can get InstAccess tokens for other users"),
            ("revoke_tokens", "Can revoke issued tokens"),
            ("inspect_tokens", "Can decrypt and inspect InstAccess tokens"),
        ]
        # `db_index` is not used for these columns, because on PostgreSQL, Django would also create an index for LIKE
        # queries. This app runs no LIKE queries on these columns.
        indexes = [
            models.Index(fields=["client_id", "issued_at"], name="instaccess_client_issued"),
            models.Index(fields=["account_uuid", "issued_at"], name="instaccess_account_issued"),
            models.Index(fields=["user_uuid"], name="instaccess_user_uuid"),
            models.Index(fields=["real_user_uuid"], name="instaccess_real_user_uuid"),
            models.Index(fields=["user_name"], name="instaccess_user_name"),
            models.Index(fields=["real_user_name"], name="instaccess_real_user_name"),
            models.Index(fields=["ip_address"], name="instaccess_address"),
            # Gateways query the tokens that were revoked within about the last hour.
            models.Index(fields=["revoked_at"], name="instaccess_revoked"),
        ]

    def __str__(self) -> str:
        return str(self.jti)


class RevocationLock(models.Model):
    """A table with a single row, which is a write lock for revocations.

    Every revocation first updates the row, so revocations are committed in the order of their numbers. This kind of
    lock works on every database.
    """

    last_number = models.BigIntegerField(default=0)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.last_number)


class Revocation(models.Model):
    """A revocation of a batch of single tokens, of all tokens of a user, an account or a key, or of all tokens.

    Gateways read the rows in the order of `number`. Every new row has the highest number, so a gateway that continues
    after the last number that it has read gets all new rows. A revocation takes effect when its row is committed.
    For a revocation of single tokens, the same transaction marks the audit rows of the tokens. For any other
    revocation, the audit rows are marked after the commit. See `audit/revocation_log.py`.
    """

    class Kind(models.TextChoices):
        TOKENS = "tokens"
        USER = "user"
        ACCOUNT = "account"
        KEY = "key"
        ALL = "all"

    # The number is a time in microseconds since 1970. After the database is restored from a backup, new rows
    # therefore never get the numbers of lost rows.
    number = models.BigIntegerField(primary_key=True)
    kind = models.CharField(max_length=8, choices=Kind.choices)
    # The value is the uuid of the user or the account, or the key id. The value is empty for all tokens and for a
    # batch of single tokens. The audit rows of a batch have the same `revoked_at` as this row.
    value = models.CharField(max_length=255, blank=True)
    # A revocation of a user, of an account or of all tokens covers only tokens with an `iat` up to this time, in
    # seconds since 1970. The column is NULL for a batch of single tokens and for a key.
    latest_iat = models.BigIntegerField(null=True)
    revoked_at = models.DateTimeField()
    revoked_by = models.CharField(max_length=255, blank=True)
    reason = models.CharField(max_length=255, blank=True)
    # This column is NULL until the audit rows of all tokens that this revocation covers are marked as revoked.
    completed_at = models.DateTimeField(null=True)
    mac = models.CharField(max_length=64, blank=True)

    class Meta:
        ordering = ["number"]
        default_permissions = ()
        indexes = [models.Index(fields=["kind", "number"], name="instaccess_revocation_kind")]

    def __str__(self) -> str:
        return f"{self.number} {self.kind} {self.value}".rstrip()


class Checkpoint(models.Model):
    """A signed statement about a range of audit rows, created when the rows can no longer change.

    The payload of `jws` contains the whole statement, including a digest of the index. The index lists a digest of
    each row, so that verification can report each row that was modified or deleted. See
    `audit/evidence/checkpoints.py`.
    """

    number = models.BigIntegerField(_("number"), unique=True)
    jws = models.TextField(_("signed statement"))
    index = models.TextField(_("index of rows"))
    mac = models.CharField(_("authentication code"), max_length=64)

    class Meta:
        verbose_name = _("checkpoint")
        verbose_name_plural = _("checkpoints")
        ordering = ["number"]
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.number)


class PruneMarker(models.Model):
    """A signed statement that all audit rows up to the last row of a checkpoint were pruned.

    Without the statement, verification would report the pruned rows as deleted by an attacker.
    """

    number = models.BigIntegerField(_("number"), unique=True, help_text=_("The last checkpoint that was pruned."))
    jws = models.TextField(_("signed statement"))
    mac = models.CharField(_("authentication code"), max_length=64)

    class Meta:
        verbose_name = _("prune marker")
        verbose_name_plural = _("prune markers")
        ordering = ["number"]
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.number)


class IncidentReview(models.Model):
    """A signed statement that an operator has reviewed problems in the audit log. See `audit/evidence/reviews.py`."""

    number = models.BigIntegerField(_("number"), unique=True)
    jws = models.TextField(_("signed statement"))
    problems = models.TextField(_("reviewed problems"))
    mac = models.CharField(_("authentication code"), max_length=64)

    class Meta:
        verbose_name = _("review of an incident")
        verbose_name_plural = _("reviews of incidents")
        ordering = ["number"]
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.number)


class RefusalCount(models.Model):
    """The number of refusals within one hour, per role, reason, client and user.

    A row never contains a token or an address.
    """

    class Role(models.TextChoices):
        ISSUER = "issuer", _("issuer")
        GATEWAY = "gateway", _("gateway")

    hour = models.DateTimeField(_("hour"))
    role = models.CharField(_("role"), max_length=8, choices=Role.choices)
    reason = models.CharField(_("reason"), max_length=64)
    client_id = models.CharField(_("client id"), max_length=255, blank=True)
    user_uuid = models.CharField(_("user uuid"), max_length=255, blank=True)
    count = models.BigIntegerField(_("count"), default=0)

    class Meta:
        verbose_name = _("refusals")
        verbose_name_plural = _("refusals")
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["hour", "role", "reason", "client_id", "user_uuid"], name="instaccess_refusals_of_an_hour"
            )
        ]

    def __str__(self) -> str:
        return f"{self.hour.astimezone(UTC):%Y-%m-%dT%H}Z {self.role} {self.reason}: {self.count}"


class MaintenanceRun(models.Model):
    """The last run of a maintenance command, such as `seal` or `rotate`. See `audit/maintenance.py`."""

    class Result(models.TextChoices):
        RUNNING = "running", _("running")
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")

    command = models.CharField(_("command"), max_length=16, primary_key=True)
    started_at = models.DateTimeField(_("started"))
    finished_at = models.DateTimeField(_("finished"), null=True)
    result = models.CharField(_("result"), max_length=9, choices=Result.choices)
    # This column contains the end of the last successful run. The other columns may describe a later run.
    succeeded_at = models.DateTimeField(_("last success"), null=True)

    class Meta:
        verbose_name = _("maintenance run")
        verbose_name_plural = _("maintenance runs")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.command}: {self.result}"


class UserIdentity(models.Model):
    """The uuid that identifies a user in tokens: random, created when first needed, never changed or reused."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        on_delete=models.CASCADE,
        related_name="instaccess_identity",
        primary_key=True,
    )
    uuid = models.UUIDField(_("uuid"), unique=True, default=uuid.uuid4, editable=False)
    created_at = models.DateTimeField(_("created"), default=timezone.now)

    class Meta:
        verbose_name = _("user identity")
        verbose_name_plural = _("user identities")
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.uuid)


class ServiceUser(models.Model):
    """The user for whom an OAuth2 application gets tokens with the client credentials grant.

    Without a service user, the application gets no tokens with this grant, because the grant involves no user.
    """

    application = models.OneToOneField(
        APPLICATION_MODEL,
        verbose_name=_("application"),
        on_delete=models.CASCADE,
        related_name="instaccess_service_user",
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("user"), on_delete=models.CASCADE, related_name="+"
    )
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)

    class Meta:
        verbose_name = _("service user")
        verbose_name_plural = _("service users")

    def __str__(self) -> str:
        # The text contains "as" instead of an arrow, because the admin log stores the text, and some databases can't
        # store an arrow.
        return f"{self.application} as {self.user}"
