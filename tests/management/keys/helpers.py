"""Functions that run `manage.py instaccess_keys` and read the stored keys."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from instaccess.models import Key

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION


def run(*args: str) -> str:
    """Run `manage.py instaccess_keys`. Returns the standard output."""
    out = io.StringIO()
    call_command("instaccess_keys", *args, stdout=out)
    return out.getvalue()


def run_json(*args: str) -> Any:
    return json.loads(run(*args, "--json"))


def error_of(*args: str, out: io.StringIO | None = None) -> str:
    """Run `manage.py instaccess_keys`, which must fail with exit code 1. Returns the error message."""
    with pytest.raises(CommandError) as caught:
        call_command("instaccess_keys", *args, stdout=out or io.StringIO(), stderr=io.StringIO())
    assert caught.value.returncode == 1
    return str(caught.value)


def key_of(use: Key.Use, status: str) -> Key:
    return Key.objects.get(use=use, status=status)
