"""Running `manage.py instaccess_keys`, and the keys that it changes."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from instaccess.models import Key

SIG, ENC = Key.Use.SIGNING, Key.Use.ENCRYPTION


def run(*args: str) -> str:
    """What the command writes to standard output, having succeeded."""
    out = io.StringIO()
    call_command("instaccess_keys", *args, stdout=out)
    return out.getvalue()


def run_json(*args: str) -> Any:
    return json.loads(run(*args, "--json"))


def complaint(*args: str, out: io.StringIO | None = None) -> str:
    """What it says where it fails: `manage.py` writes that to standard error, and exits with 1."""
    with pytest.raises(CommandError) as caught:
        call_command("instaccess_keys", *args, stdout=out or io.StringIO(), stderr=io.StringIO())
    assert caught.value.returncode == 1
    return str(caught.value)


def key_of(use: Key.Use, status: str) -> Key:
    return Key.objects.get(use=use, status=status)
