"""Tests that read the syntax tree of each module, and check the rules for imports in docs/architecture.md."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import instaccess

PACKAGE = Path(instaccess.__file__).parent

# Within this app, each module or package in this list may import only earlier entries of the list. The packages in
# ROLES don't import each other.
ORDER = [
    *("exceptions", "times", "opaque", "logs", "database_errors", "database_clock", "signals"),
    *("tokens", "conf", "web", "trust", "monitoring"),
    *("charsets", "models", "users", "audit", "keys"),
    *("issuer", "gateway", "service", "client", "warmup", "asgi", "urls", "apps"),
    *("admin", "management", "templatetags"),
]
ROLES = {"issuer", "gateway", "service"}
WITHOUT_DJANGO = ("exceptions", "times", "opaque", "logs", "tokens", "client", "asgi")
NEEDED_BY_THE_CLIENT = {"exceptions", "opaque"}
WITHOUT_MODELS = {
    "exceptions",
    "times",
    "opaque",
    "logs",
    "database_errors",
    "database_clock",
    "signals",
    "tokens",
    "conf",
    "web",
    "trust",
    "monitoring",
    "gateway",
    "service",
    "client",
    "warmup",
    "asgi",
}
# These modules connect the packages, so they may import files of other packages.
COMPOSITION_ROOTS = {"apps", "urls", "gateway.apps", "service.apps"}
PROVIDER_MODULES = {"oauth2_provider.contrib.rest_framework", "oauth2_provider.models"}


class Import(NamedTuple):
    module: str
    """The absolute name of the module, such as `django.db`, or the name in this app, such as `tokens.jose`."""
    name: str
    in_function: bool
    for_types: bool
    """Whether the import is in an `if TYPE_CHECKING` block."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_name(path): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "migrations" not in path.parts and path.parent
}
WINGS = {name for name, path in FILES.items() if name and "." not in name and path.name == "__init__.py"}


def wing_of(module: str) -> str:
    return module.partition(".")[0]


def imports(module: str, text: str | None = None) -> Iterator[Import]:
    path = FILES[module]
    tree = ast.parse(path.read_text() if text is None else text)
    package = path.relative_to(PACKAGE).parts[:-1]
    functions, types = (
        {id(node) for block in ast.walk(tree) if is_block(block) for node in ast.walk(block)}
        for is_block in (
            lambda block: isinstance(block, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)),
            lambda block: isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING",
        )
    )
    for node in ast.walk(tree):
        place = (id(node) in functions, id(node) in types)
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name.removeprefix("instaccess."), "", *place)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*above, *filter(None, [node.module])]).removeprefix("instaccess.")
            source = "" if source == "instaccess" else source
            for alias in node.names:
                submodule = f"{source}.{alias.name}".lstrip(".")
                yield Import(submodule, "", *place) if submodule in FILES else Import(source, alias.name, *place)


def imported(module: str) -> set[str]:
    """Return the modules of this package that a module imports, including imports in functions and for types."""
    return {item.module for item in imports(module) if item.module in FILES and item.module}


class TestAModule:
    @pytest.mark.parametrize("module", FILES)
    def test_every_module_belongs_to_a_package_in_the_order_of_imports(self, module):
        assert wing_of(module) in {*ORDER, ""}

    @pytest.mark.parametrize("module", [module for module in FILES if module])
    def test_module_imports_only_packages_that_come_earlier_in_the_order_of_imports(self, module):
        own = wing_of(module)
        before = set(ORDER[: ORDER.index(own)]) - (ROLES if own in ROLES else set())

        assert {wing_of(name) for name in imported(module)} <= before | {own}

    @pytest.mark.parametrize("module", [module for module in FILES if module not in COMPOSITION_ROOTS])
    def test_module_imports_names_of_another_package_only_from_the_package_itself(self, module):
        others = {name for name in imported(module) if wing_of(name) != wing_of(module)}

        assert {name for name in others if "." in name} == set()

    @pytest.mark.parametrize("module", [module for module in FILES if module != "apps"])
    def test_module_has_no_import_inside_a_function(self, module):
        assert [item.module for item in imports(module) if item.in_function] == []

    @pytest.mark.parametrize("module", [module for module in FILES if module != "apps"])
    def test_module_does_not_check_whether_the_app_is_installed(self, module):
        assert 'is_installed("instaccess")' not in FILES[module].read_text()

    @pytest.mark.parametrize("module", FILES)
    def test_module_has_no_star_import(self, module):
        assert not any(item.name == "*" for item in imports(module))

    @pytest.mark.parametrize("module", FILES)
    def test_module_imports_only_stable_modules_of_django_oauth_toolkit(self, module):
        # The app may import only these modules of the toolkit, because the toolkit may move its other modules in a
        # minor version.
        imported_items = [item for item in imports(module) if item.module.partition(".")[0] == "oauth2_provider"]

        assert {item.module for item in imported_items} <= PROVIDER_MODULES
        for item in imported_items:
            assert item.module != "oauth2_provider.models" or (
                item.name.startswith("get_") and item.name.endswith("_model")
            )


class TestAPackage:
    @pytest.mark.parametrize("wing", sorted(WINGS - {"management"}))
    def test_package_has_a_docstring(self, wing):
        assert ast.get_docstring(ast.parse(FILES[wing].read_text()))

    @pytest.mark.parametrize("wing", sorted(WINGS - {"management", "admin", "templatetags"}))
    def test_package_lists_its_public_names_in_sorted_order(self, wing):
        module = __import__(f"instaccess.{wing}", fromlist=["__all__"])

        assert module.__all__ == sorted(
            module.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name)
        )
        assert all(hasattr(module, name) for name in module.__all__)

    @pytest.mark.parametrize("wing", sorted(WITHOUT_MODELS))
    def test_package_without_tables_never_imports_the_models(self, wing):
        visited: set[str] = set()
        waiting = {name for name in FILES if wing_of(name) == wing}
        while waiting:
            module = waiting.pop()
            visited.add(module)
            waiting |= imported(module) - visited

        assert "models" not in visited

    def test_modules_have_no_circular_imports(self):
        graph = {module: imported(module) - {module, wing_of(module)} for module in FILES}
        while leaves := {module for module, needs in graph.items() if not needs & set(graph)}:
            graph = {module: needs for module, needs in graph.items() if module not in leaves}

        assert graph == {}


class TestTheImportFinder:
    def test_the_import_finder_of_these_tests_finds_every_form_of_import(self):
        text = (
            "from . import users, admin\nfrom .issuer import issue\nimport instaccess.keys.ring\n"
            "from instaccess import audit\ndef later():\n    from .gateway import unwrap\n"
            "from .admin.keys.page import KeyAdmin\nif TYPE_CHECKING:\n    from . import trust\n"
        )

        result = {item.module: (item.in_function, item.for_types) for item in imports("models", text)}

        assert result == {
            "users": (False, False),
            "admin": (False, False),
            "issuer": (False, False),
            "keys.ring": (False, False),
            "audit": (False, False),
            "gateway": (True, False),
            "admin.keys.page": (False, False),
            "trust": (False, True),
        }


class TestPackagesWithoutDjango:
    @pytest.mark.parametrize("module", [module for module in FILES if wing_of(module) in WITHOUT_DJANGO])
    def test_module_without_django_imports_only_the_standard_library_and_its_listed_packages(self, module):
        packages = {item.module.partition(".")[0] for item in imports(module) if item.module not in FILES}
        allowed = {"requests", "urllib3"} if wing_of(module) == "client" else {"jwcrypto", "cryptography"}
        # This module may import httpx, because only projects that use httpx import this module.
        optional = {"httpx"} if module == "client.httpx_auth" else set()

        assert packages - sys.stdlib_module_names <= {*allowed, *optional, ""}

    @pytest.mark.parametrize("module", [module for module in FILES if wing_of(module) == "client"])
    def test_client_imports_no_package_that_reads_settings_or_keys(self, module):
        assert {wing_of(name) for name in imported(module)} <= {*NEEDED_BY_THE_CLIENT, "client"}

    def test_tokens_package_works_without_django(self):
        program = (
            "import sys\n"
            "for name in ('django', 'rest_framework', 'oauth2_provider'):\n"
            "    sys.modules[name] = None  # makes importing it fail\n"
            "from instaccess.tokens import Claims\n"
            "print(Claims.new(now=1, issuer='i', user_uuid='u', account_uuid='a', canvas_domain='c').expires_at)\n"
        )
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}

        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=PACKAGE.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert (done.returncode, done.stdout, done.stderr) == (0, "3601\n", "")
