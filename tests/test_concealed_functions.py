"""Tests of functions whose variables contain a revealed secret: an exception contains no frame of such a function.

`tests/test_opaque.py` tests the decorator `concealed`. These tests check that every such function has the decorator.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from instaccess.exceptions import InstAccessError
from tests.support.paths import ROOT

SECRET = "the secret"

CONCEALED = [
    "admin.keys.actions:_read_import_form",
    "client.bearer:add_token",
    "client.bearer:contains_token",
    "client.issuing:check_access_token",
    "client.issuing:request_token",
    "client.token_source:InstAccess.__init__",
    "conf.key_encryption:KeyEncryptionKey.hmac",
    "conf.key_encryption:KeyEncryptionKey.prepare_hmac",
    "conf.key_encryption:_hmac_key",
    "conf.key_encryption:derive_kek",
    "conf.key_encryption:kek_id",
    "conf.key_settings:KeySettings.key_encryption_keys",
    "conf.settings:Conf._load",
    "conf.settings:Conf.decryption_keys",
    "conf.settings:Conf.service_secrets",
    "conf.settings:Conf.verification_keys",
    "conf.values:read_project_settings",
    "issuer.internal_views:_is_service_secret",
    "issuer.issuing:_sign_and_encrypt",
    "keys.sealing:seal",
    "keys.sealing:unseal",
    "management.commands.instaccess_keys:Command._print",
    "service.verifier:Verifier._verify_header",
    "tokens.jose:_decrypt_with_key",
    "tokens.private_key:PrivateKey.op_key",
    "tokens.private_key:PrivateKey.public",
    "tokens.private_key:PrivateKey.thumbprint",
    "trust.fetch:fetch_json",
    "trust.material:for_use",
    "trust.material:generate",
    "trust.material:parse",
    "trust.material:private_to_text",
    "trust.sources:_parse_all",
]
"""The module and the name of each concealed function, without the prefix `instaccess.`."""


class FailingArgument:
    """An argument that raises an error with the secret when a function uses the argument."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(SECRET)

    def __str__(self) -> str:
        raise RuntimeError(SECRET)

    def __iter__(self) -> Any:
        raise RuntimeError(SECRET)

    def __getitem__(self, item: Any) -> Any:
        raise RuntimeError(SECRET)


def find(name: str) -> Any:
    """Return the function with this name, including its decorators. For a property, returns the getter."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(f"instaccess.{module}")
    for part in path.split("."):
        found = inspect.getattr_static(found, part)
    return getattr(found, "fget", getattr(found, "func", found))


def decorated() -> Iterator[str]:
    for path in sorted((ROOT / "instaccess").rglob("*.py")):
        tree = ast.parse(path.read_text())
        module = ".".join(path.relative_to(ROOT / "instaccess").with_suffix("").parts)
        for owner in ast.walk(tree):
            for node in ast.iter_child_nodes(owner):
                if isinstance(node, ast.FunctionDef) and "concealed" in map(ast.unparse, node.decorator_list):
                    prefix = f"{owner.name}." if isinstance(owner, ast.ClassDef) else ""
                    yield f"{module}:{prefix}{node.name}"


class TestConcealedFunctions:
    def test_list_in_this_file_contains_all_concealed_functions(self):
        assert sorted(decorated()) == CONCEALED

    @pytest.mark.parametrize("name", CONCEALED)
    def test_k14_error_of_a_concealed_function_contains_neither_its_frame_nor_the_text_of_the_cause(
        self, name, monkeypatch
    ):
        function = find(name)
        code = inspect.unwrap(function).__code__
        parameters = inspect.signature(function).parameters.values()
        failing = {each.name: FailingArgument() for each in parameters if each.kind is each.KEYWORD_ONLY}
        positional = [FailingArgument() for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
        # Let the settings fail too, because some functions read the project's settings and have no argument.
        monkeypatch.setattr("instaccess.conf.values.settings", FailingArgument())

        with pytest.raises((InstAccessError, SystemExit)) as caught:
            function(*positional, **failing)

        assert code not in [frame.f_code for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        assert SECRET not in str(caught.value)
