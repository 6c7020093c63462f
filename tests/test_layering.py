"""The house: which file may import which, read from the syntax tree."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest

import instaccess

PACKAGE = Path(instaccess.__file__).parent

# Floor by floor, and from the ground up within a floor: a file imports only from files that stand before it. Files
# that are still to come have their place already. `checks` looks at all of the state, so it stands on top of it;
# `canvas` comes first of the surfaces, because the others answer with it.
HOUSE = {
    "core": ["exceptions", "nesting", "claims", "compact", "minting", "jose"],
    "state": [
        "settingvalues",
        "conf",
        "people",
        "models",
        "instances",
        "tally",
        "refusal_table",
        "refusals",
        "unusual",
        "snapshot",
        "fetch",
        "keymaterial",
        "sealing",
        "evidence",
        "rotation",
        "keyring",
        "keystore",
        "keys",
        "revocation",
        "exporting",
        "statements",
        "checkpoints",
        "references",
        "verification",
        "retention",
        "lifecycle",
        "health",
        "identity",
        "checks",
        "deployment_checks",
    ],
    "roles": [
        "client",
        "recording",
        "issuer",
        "keysource",
        "denylist",
        "role_checks",
        "standalone",
        "warmup",
        "gateway",
        "consumer",
        "reasons",
        "pasted",
        "audited",
        "dissection",
        "inspection",
    ],
    "surfaces": [
        "canvas",
        "throttling",
        "endpoint",
        "lookup",
        "parameters",
        "oauth",
        "views",
        "jwks",
        "revocations",
        "forward_auth",
        "urls_issuer",
        "urls_gateway",
        "urls_services",
        "urls",
        "admin",
        "management",
        "apps",
    ],
}
ORDER = list(chain.from_iterable(HOUSE.values()))

# A service or a gateway of its own has no tables of ours: these run where the app is not even installed.
WITHOUT_TABLES = ["keysource", "warmup", "denylist", "gateway", "consumer", "forward_auth", "urls_gateway"]
# Importing one of these reads tables.
TABLES = {
    "models",
    "refusal_table",
    "evidence",
    "statements",
    "checkpoints",
    "references",
    "verification",
    "retention",
    "keyring",
    "keystore",
    "keys",
    "lifecycle",
    "health",
    "rotation",
    "revocation",
    "exporting",
    "identity",
    "checks",
    "recording",
    "issuer",
    "lookup",
    "audited",
    "dissection",
    "inspection",
}

PROVIDER_MODULES = {"oauth2_provider.contrib.rest_framework", "oauth2_provider.models"}


@dataclass(frozen=True)
class Import:
    module: str
    """Absolute, down to the file: `instaccess.admin.keys`, `django.db`."""
    name: str
    """What is taken from it; empty for `import module`."""
    at_load: bool
    """Whether it runs when the file is loaded: not within a function, not for the type checker alone."""


def source_files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] != "migrations"]


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in source_files()}


def imports(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text())
    package = path.relative_to(PACKAGE.parent).parts[:-1]
    later = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        or (isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING" and not block.orelse)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        at_load = id(node) not in later
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, "", at_load)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                submodule = f"{module}.{alias.name}"
                if submodule in FILES:
                    yield Import(submodule, "", at_load)
                else:
                    yield Import(module, alias.name, at_load)


def place(module: str) -> str:
    """The file of the house a module belongs to: `instaccess.admin.keys` -> `admin`; empty for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def ours(module: str) -> bool:
    return module.partition(".")[0] == "instaccess"


def imported_by(module: str, *, at_load: bool = False) -> set[str]:
    return {item.module for item in imports(FILES[module]) if item.at_load or not at_load}


class TestTheHouse:
    def test_has_a_place_for_every_file(self):
        homeless = [module for module in FILES if place(module) not in {*ORDER, ""}]

        assert homeless == []

    def test_has_each_file_in_one_place(self):
        assert len(ORDER) == len(set(ORDER))

    @pytest.mark.parametrize("module", FILES)
    def test_is_built_upwards(self, module):
        own = place(module)
        allowed = {""} | set(ORDER[: ORDER.index(own)] if own else ())
        within = {own} if FILES[module].parent != PACKAGE else set()

        taken = {place(name) for name in imported_by(module) if ours(name)}

        assert taken <= allowed | within

    def test_has_no_circles_within_a_folder_either(self):
        graph = {module: {name for name in imported_by(module) if name in FILES} - {module} for module in FILES}
        while leaves := {module for module, needs in graph.items() if not needs & set(graph)}:
            graph = {module: needs for module, needs in graph.items() if module not in leaves}

        assert graph == {}

    def test_would_not_let_an_upside_down_import_pass(self, tmp_path, monkeypatch):
        # The reader of imports, read: a form it overlooks would be a hole in the rule.
        file = PACKAGE / "models.py"
        text = (
            "from . import views, admin\nfrom .issuer import issue\nimport instaccess.oauth\n"
            "from instaccess import keys\ndef later():\n    from .gateway import unwrap\n"
            "from .admin.keys import KeyAdmin\nfrom ..elsewhere import x\n"
            "if TYPE_CHECKING:\n    from . import jwks\nif DEBUG:\n    from . import urls\n"
        )
        monkeypatch.setattr(Path, "read_text", lambda path: text)

        found = {item.module: item.at_load for item in imports(file)}

        assert found == {
            "instaccess.views": True,
            "instaccess.admin": True,
            "instaccess.issuer": True,
            "instaccess.oauth": True,
            "instaccess.keys": True,
            "instaccess.gateway": False,
            "instaccess.admin.keys": True,
            "elsewhere": True,
            "instaccess.jwks": False,
            "instaccess.urls": True,
        }


class TestTheCore:
    @pytest.mark.parametrize("name", HOUSE["core"])
    def test_imports_nothing_but_the_standard_library_jwcrypto_and_what_that_brings(self, name):
        packages = {module.partition(".")[0] for module in imported_by(f"instaccess.{name}")}

        assert packages - sys.stdlib_module_names <= {"jwcrypto", "cryptography", "instaccess"}

    def test_works_where_there_is_no_django_at_all(self):
        program = (
            "import sys\n"
            "for name in ('django', 'rest_framework', 'oauth2_provider'):\n"
            "    sys.modules[name] = None  # an import of it fails\n"
            f"import {', '.join(f'instaccess.{name}' for name in HOUSE['core'])}\n"
            "print(instaccess.claims.Claims.new(now=1, issuer='i', user_uuid='u', account_uuid='a',"
            " canvas_domain='c').expires_at)\n"
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


class TestAServiceOrAGatewayOfItsOwn:
    @pytest.mark.parametrize("name", WITHOUT_TABLES)
    def test_needs_no_tables(self, name):
        # What the file imports when it is loaded, and what that imports in turn. It may reach for the keys of the
        # database within a function, for the deployment that plays all roles; never for the models themselves.
        seen: set[str] = set()
        waiting = {f"instaccess.{name}"} & set(FILES)
        while waiting:
            module = waiting.pop()
            seen.add(module)
            waiting |= (imported_by(module, at_load=True) & set(FILES)) - seen

        assert {place(module) for module in seen} & TABLES == set()
        if f"instaccess.{name}" in FILES:
            assert "instaccess.models" not in imported_by(f"instaccess.{name}")
            assert not any(item.startswith("oauth2_provider") for item in imported_by(f"instaccess.{name}"))


class TestWhatIsTakenFromOthers:
    @pytest.mark.parametrize("module", FILES)
    def test_of_the_oauth2_toolkit_is_what_stays(self, module):
        # The toolkit is moving its other modules about.
        taken = [item for item in imports(FILES[module]) if item.module.partition(".")[0] == "oauth2_provider"]

        assert {item.module for item in taken} <= PROVIDER_MODULES
        for item in taken:
            if item.module == "oauth2_provider.models":
                assert item.name.startswith("get_")
                assert item.name.endswith("_model")

    def test_of_rest_framework_stays_out_of_core_and_state(self):
        users = {place(m) for m in FILES if any(i.partition(".")[0] == "rest_framework" for i in imported_by(m))}

        assert users & {*HOUSE["core"], *HOUSE["state"]} == set()

    @pytest.mark.parametrize("module", FILES)
    def test_is_never_everything(self, module):
        assert not any(item.name == "*" for item in imports(FILES[module]))
