"""A user model with a uuid field, and replacements for the models of django-oauth-toolkit."""

from __future__ import annotations

import uuid

from django.contrib.auth.models import AbstractUser
from django.db import models
from oauth2_provider.models import (
    AbstractAccessToken,
    AbstractApplication,
    AbstractGrant,
    AbstractIDToken,
    AbstractRefreshToken,
)


class Person(AbstractUser):
    uuid = models.UUIDField(unique=True, default=uuid.uuid4)


class Tool(AbstractApplication):
    disabled = models.BooleanField(default=False)

    def is_usable(self, request):
        return not self.disabled


class Pass(AbstractAccessToken):
    note = models.CharField(max_length=20, blank=True)


class Grant(AbstractGrant):
    pass


class IDToken(AbstractIDToken):
    pass


class RefreshToken(AbstractRefreshToken):
    pass
