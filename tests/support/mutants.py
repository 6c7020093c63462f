"""A command for mutation testing: change the critical modules one place at a time, and run the tests.

python -m tests.support.mutants --seed 7 [--sample 100] [--only instaccess/tokens] [--every-test]

Prints for each mutant the first test that fails, or a diff if no test fails. A mutant survives for one of these
reasons:

- The tests have a gap. Write a test of the behavior that the mutant breaks, in the folder of `tests/` that has the
  name of the package. Check whether the tests of similar code have the same gap. Run the same seed again: the test
  must kill the mutant.
- Only tests that did not run detect the mutant. `--every-test` runs the whole suite on each survivor.
- The mutant is equivalent: no caller can detect the difference, for example a larger cache. Change nothing.
- The mutant is undecidable, because its code runs only with PostgreSQL, MariaDB or Redis. This command runs no test
  that needs such a server.

At least 97% of the mutants that are neither equivalent nor undecidable must be killed. Run the command by hand, like
the benchmarks, because each mutant takes between 5 seconds and a minute.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import Queue
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parents[2]

CRITICAL = {
    "instaccess/tokens": ["tests/tokens", "tests/gateway", "tests/service", "tests/test_concealed_functions.py"],
    "instaccess/issuer": [
        "tests/issuer",
        "tests/web",
        "tests/test_concealed_functions.py",
        "tests/test_openapi.py",
        "tests/audit/test_names.py",
        "tests/trust/test_denylist.py",
        "tests/test_signals_of_requests.py",
        "tests/test_signals_of_two_databases.py",
        "tests/monitoring/test_metrics.py",
        "tests/monitoring/test_health.py",
        "tests/test_log_of_an_outage.py",
        "tests/error_reports/test_endpoints.py",
    ],
    "instaccess/gateway": ["tests/gateway", "tests/web/refusals", "tests/test_log_of_an_outage.py"],
    "instaccess/service": ["tests/service", "tests/test_openapi.py"],
    "instaccess/trust": [
        "tests/trust",
        "tests/gateway",
        "tests/service",
        "tests/keys",
        "tests/test_concealed_functions.py",
    ],
    "instaccess/audit": [
        "tests/audit",
        "tests/management",
        "tests/issuer",
        "tests/monitoring",
        "tests/test_signals_of_changes.py",
        "tests/test_signals_of_two_databases.py",
    ],
    "instaccess/keys": [
        "tests/keys",
        "tests/management",
        "tests/test_concealed_functions.py",
        "tests/monitoring",
        "tests/test_signals_of_changes.py",
        "tests/test_signals_of_two_databases.py",
    ],
    "instaccess/users.py": ["tests/test_users.py", "tests/test_users_lookups.py", "tests/issuer", "tests/service"],
    "instaccess/web": [
        "tests/web",
        "tests/issuer",
        "tests/gateway",
        "tests/service",
        "tests/test_log_of_an_outage.py",
        "tests/outages",
    ],
    "instaccess/conf": ["tests/conf", "tests/test_checks.py", "tests/test_concealed_functions.py", "tests/keys"],
}
"""The critical modules, with the tests that run first for a mutant of each module."""

_UNDECIDABLE_FILES = {"checks.py", "__init__.py", "apps.py", "urls.py"}
"""The names of excluded files, in which most mutants change only a text, an export or a route."""


def _replacement(node: Any, new: Any) -> Any:
    """Return a new node with the white space and the comments that precede the old node."""
    new.get_first_leaf().prefix = node.get_first_leaf().prefix
    return new


class KeywordArgumentRemover(Operator):  # type: ignore[misc]
    """A mutation operator that removes a keyword argument of a call, such as the condition in `filter(pk=1)`."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        if node.type == "argument" and len(node.children) == 3 and node.children[1].value == "=":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        return _replacement(node, parso.parse("f(**{})").children[0].children[1].children[1])

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class CallRemover(Operator):  # type: ignore[misc]
    """A mutation operator that replaces a call with `pass` if the call is a separate statement."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        is_call = node.type == "atom_expr" and getattr(node.children[-1], "children", [None])[0] == "("
        if is_call and node.parent.type == "simple_stmt":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        return _replacement(node, parso.parse("pass").children[0])

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change in one place of a file, given by the mutation operator and the number of the place."""

    path: str
    operator: str
    occurrence: int
    place: tuple[int, int]

    @property
    def kind(self) -> tuple[str, tuple[int, int], str]:
        """The path, the place, and the name of the operator up to the first underscore.

        At the same place, for example, the mutants of the operators `core/ReplaceBinaryOperator_Add_Sub` and
        `core/ReplaceBinaryOperator_Add_Mul` have the same kind.
        """
        return self.path, self.place, self.operator.partition("_")[0]

    def mutate(self, source: str) -> str | None:
        """Return the changed source code, or None if the code is unchanged or isn't valid Python code."""
        try:
            mutated: str | None = mutate_code(source, _operators()[self.operator], self.occurrence)
            ast.parse(mutated or "")
        except (AttributeError, SyntaxError):
            # The operator ExceptionReplacer raises AttributeError for an exception name with a dot.
            return None
        return mutated if mutated != source else None


@cache
def _operators() -> dict[str, Operator]:
    operators: dict[str, Operator] = {"keyword-argument": KeywordArgumentRemover(), "call": CallRemover()}
    for name in operator_names():
        if not get_operator(name).arguments() and not name.endswith("NoOp"):
            operators[name] = get_operator(name)()
    return operators


def _mutants(path: Path) -> Iterator[Mutant]:
    source = path.read_text()
    excluded = list(_excluded_ranges(ast.parse(source)))
    nodes = list(ast_nodes(get_ast(source)))
    for name, operator in _operators().items():
        positions = [(start, node) for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, (start, node) in enumerate(positions):
            if not _is_star_of_parameters(node) and not any(first <= start < last for first, last in excluded):
                yield Mutant(str(path.relative_to(ROOT)), name, occurrence, start)


def _is_star_of_parameters(node: Any) -> bool:
    """Return whether a node is the `*` in `def f(a, *, b)`. This `*` is not a multiplication."""
    return node.type == "operator" and node.parent.type in {"parameters", "param", "lambdef"}


def _excluded_ranges(tree: ast.Module) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield the ranges that are not mutated: annotations, type aliases, and decorators of caches and dataclasses."""
    for node in ast.walk(tree):
        parts: list[ast.expr | None] = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for decorator in getattr(node, "decorator_list", ()):
            if "cache" in ast.unparse(decorator) or "dataclass" in ast.unparse(decorator):
                parts.append(decorator)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp):
            is_alias = all(
                isinstance(target, ast.Name) and target.id.lstrip("_")[:1].isupper() for target in node.targets
            )
            parts.append(node.value if is_alias and "|" in ast.unparse(node.value) else None)
        for part in filter(None, parts):
            yield (part.lineno, part.col_offset), (part.end_lineno or 0, part.end_col_offset or 0)


def _sample(seed: int, size: int, only: Sequence[str]) -> list[Mutant]:
    # Each place counts once. If each mutant counted, a `+` would count eleven times, once for each other operator,
    # although almost every test detects these mutants.
    kinds: dict[Any, list[Mutant]] = {}
    for package in CRITICAL:
        place = ROOT / package
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            name = str(path.relative_to(ROOT))
            if path.name not in _UNDECIDABLE_FILES and (not only or any(name.startswith(prefix) for prefix in only)):
                for mutant in _mutants(path):
                    kinds.setdefault(mutant.kind, []).append(mutant)
    # The same seed must select the same sample. The random numbers are not used for cryptography.
    generator = random.Random(seed)
    places = list(kinds.values())
    generator.shuffle(places)
    sample: list[Mutant] = []
    for mutants in places:
        if len(sample) == size:
            break
        generator.shuffle(mutants)
        sample += [each for each in mutants if each.mutate((ROOT / each.path).read_text()) is not None][:1]
    return sample


def _find_failure(tree: Path, tests: Sequence[str]) -> str:
    """Run tests, and return the first test that fails, or "" if all tests pass.

    Tests that take over 25 minutes count as failed, because the mutant may have caused an endless loop.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header"]
    command += ["-m", "not services and not postgresql", *tests]
    environment = os.environ | {"SQLITE_TEST_NAME": str(tree / "mutants.sqlite3"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        result = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=1500, check=False
        )
    except subprocess.TimeoutExpired:
        return "25 minutes have passed"
    failed = re.search(r"^(?:FAILED|ERROR) (tests/.*?)(?: - |$)", result.stdout, re.MULTILINE)
    return "" if result.returncode == 0 else failed[1] if failed else "pytest can't run"


def _tests_of(mutant: Mutant) -> list[str]:
    return next(tests for package, tests in CRITICAL.items() if mutant.path.startswith(package))


def _stages(mutant: Mutant, tree: Path, every_test: bool) -> Iterator[list[str]]:
    """Yield groups of tests, in the order in which to run the groups.

    The first group contains the test files that are named after the module. These tests kill most mutants.
    """
    tests = _tests_of(mutant)
    named = sorted(str(path.relative_to(tree)) for path in tree.glob(f"tests/**/test_{Path(mutant.path).stem}*.py"))
    if first := [path for path in named if path.startswith(tuple(tests))]:
        yield first
    yield [*tests, "tests/test_logs.py"]
    if every_test:
        yield []


def _try(mutant: Mutant, tree: Path, every_test: bool) -> tuple[str, str]:
    """Run the tests on a mutant. Returns the first test that fails ("" if all tests pass), and the mutant's diff."""
    path = tree / mutant.path
    original = path.read_text()
    mutated = mutant.mutate(original) or original
    path.write_text(mutated)
    try:
        stages = _stages(mutant, tree, every_test)
        failure = next(filter(None, (_find_failure(tree, tests) for tests in stages)), "")
    finally:
        path.write_text(original)
    before, after = original.splitlines(), mutated.splitlines()
    return failure, "\n".join(difflib.unified_diff(before, after, mutant.path, mutant.path, lineterm="", n=1))


def _check_tests_pass(mutants: Sequence[Mutant], tree: Path) -> None:
    """Exit if a test fails without any mutant, because such a test would kill every mutant."""
    tests = list(dict.fromkeys(path for mutant in mutants for path in _tests_of(mutant)))
    if failure := _find_failure(tree, tests):
        sys.exit(f"A test fails without any mutant: {failure}. Repair this test first.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seed",
        type=int,
        required=True,
        help="number that selects the sample (the same seed selects the same mutants)",
    )
    parser.add_argument("--sample", type=int, default=100, help="number of mutants (default: 100)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        help="change only files whose path starts with this text, such as instaccess/tokens",
    )
    parser.add_argument("--every-test", action="store_true", help="run the whole suite on a mutant that survives")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="number of mutants tested at a time")
    options = parser.parse_args()

    mutants = _sample(options.seed, options.sample, options.only)
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        trees: Queue[Path] = Queue()
        for number in range(options.jobs):
            tree = Path(folder) / str(number)
            shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", "build", "*.sqlite3*"))
            trees.put(tree)
        _check_tests_pass(mutants, tree)

        def work(mutant: Mutant) -> tuple[Mutant, str, str]:
            tree = trees.get()
            try:
                return mutant, *_try(mutant, tree, options.every_test)
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(options.jobs) as pool:
            for number, (mutant, failure, diff) in enumerate(pool.map(work, mutants), 1):
                outcome = f"killed by {failure}" if failure else f"SURVIVED\n{diff}"
                survivors += not failure
                print(
                    f"{number}/{len(mutants)} {mutant.path}:{mutant.place[0]} {mutant.operator} {outcome}", flush=True
                )
    killed = len(mutants) - survivors
    print(f"{killed} of {len(mutants)} mutants were killed, {survivors} survived (seed {options.seed}).")


if __name__ == "__main__":
    main()
