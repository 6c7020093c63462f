"""Mutation testing: change one place of the critical modules at a time, and run the tests that should notice.

python -m tests.support.mutants --seed 7 [--sample 100] [--only instaccess/tokens] [--every-test]

Prints a diff for each mutant that no test notices. Such a mutant is either a gap in the tests, or equivalent to the
original (a larger cache, say). Run by hand, like the benchmarks: a mutant takes between 5 seconds and a minute.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
    "instaccess/tokens": ["tests/tokens", "tests/gateway", "tests/service"],
    "instaccess/issuer": ["tests/issuer", "tests/web"],
    "instaccess/gateway": ["tests/gateway"],
    "instaccess/service": ["tests/service"],
    "instaccess/trust": ["tests/trust", "tests/gateway", "tests/service", "tests/keys"],
    "instaccess/audit": ["tests/audit", "tests/management", "tests/issuer"],
    "instaccess/keys": ["tests/keys", "tests/management"],
    "instaccess/users.py": ["tests/test_users.py", "tests/issuer", "tests/service"],
    "instaccess/web": ["tests/web", "tests/issuer", "tests/gateway"],
    "instaccess/conf": ["tests/conf", "tests/test_checks.py", "tests/keys"],
}
"""The critical modules, and the tests that run first for a mutant of them."""

_UNDECIDABLE_FILES = {"checks.py", "__init__.py", "apps.py", "urls.py"}
"""Files in which most mutants change a text, an export or a route."""


class KeywordArgumentRemover(Operator):  # type: ignore[misc]
    """Remove one keyword argument of a call, such as the condition in `filter(pk=1)`."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        if node.type == "argument" and len(node.children) == 3 and node.children[1].value == "=":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        return parso.parse("**{}").children[0]

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class CallRemover(Operator):  # type: ignore[misc]
    """Replace a call that is a separate statement with `pass`."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        is_call = node.type == "atom_expr" and getattr(node.children[-1], "children", [None])[0] == "("
        if is_call and node.parent.type == "simple_stmt":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        return parso.parse("pass").children[0]

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of one place in a file: the mutation operator, and the number of the place."""

    path: str
    operator: str
    occurrence: int
    line: int


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
        positions = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, start in enumerate(positions):
            if not any(first <= start < last for first, last in excluded):
                yield Mutant(str(path.relative_to(ROOT)), name, occurrence, start[0])


def _excluded_ranges(tree: ast.Module) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield the ranges that have no effect on behaviour: annotations, and decorators that only cache."""
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
    found: list[Mutant] = []
    for wing in CRITICAL:
        place = ROOT / wing
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            name = str(path.relative_to(ROOT))
            if path.name not in _UNDECIDABLE_FILES and (not only or any(name.startswith(prefix) for prefix in only)):
                found += _mutants(path)
    # This is not for cryptography. The same seed must select the same sample.
    return random.Random(seed).sample(found, min(size, len(found)))


def _run_tests(tree: Path, tests: Sequence[str], database: str) -> bool:
    """Return whether the tests pass. Tests that take over 25 minutes count as failed: the mutant is a loop."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header"]
    command += ["-m", "not services and not postgresql", *tests]
    environment = os.environ | {"SQLITE_TEST_NAME": database, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        result = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=1500, check=False)
    except subprocess.TimeoutExpired:
        return False
    return result.returncode == 0


def _try(mutant: Mutant, tree: Path, every_test: bool) -> str | None:
    """Run the tests on a mutant. Returns its diff if no test fails, otherwise None."""
    path = tree / mutant.path
    original = path.read_text()
    mutated = mutate_code(original, _operators()[mutant.operator], mutant.occurrence)
    if mutated is None or mutated == original:
        return None
    path.write_text(mutated)
    try:
        tests = next(tests for wing, tests in CRITICAL.items() if mutant.path.startswith(wing))
        database = str(tree / "mutants.sqlite3")
        survived = _run_tests(tree, tests, database) and not (every_test and not _run_tests(tree, [], database))
    finally:
        path.write_text(original)
    before, after = original.splitlines(), mutated.splitlines()
    lines = difflib.unified_diff(before, after, mutant.path, mutant.path, lineterm="", n=1)
    return "\n".join(lines) if survived else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True, help="selects the sample: the same seed, the same mutants")
    parser.add_argument("--sample", type=int, default=100, help="number of mutants (default: 100)")
    parser.add_argument("--only", action="append", default=[], help="start of a path, such as instaccess/tokens")
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

        def work(mutant: Mutant) -> tuple[Mutant, str | None]:
            tree = trees.get()
            try:
                return mutant, _try(mutant, tree, options.every_test)
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(options.jobs) as pool:
            for number, (mutant, diff) in enumerate(pool.map(work, mutants), 1):
                survivors += diff is not None
                outcome = "SURVIVED" if diff else "killed"
                print(f"{number}/{len(mutants)} {outcome} {mutant.path}:{mutant.line} {mutant.operator}", flush=True)
                if diff:
                    print(diff, flush=True)
    killed = len(mutants) - survivors
    print(f"{killed} of {len(mutants)} mutants were killed, {survivors} survived (seed {options.seed}).")


if __name__ == "__main__":
    main()
