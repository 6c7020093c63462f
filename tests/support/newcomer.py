"""A program that follows docs/tutorial.md as a newcomer does, and measures the time of the commands.

python -m tests.support.newcomer [--write]

The program builds the wheel, installs the wheel in a new environment in an empty folder, and runs all code blocks of
the page with real servers. The program replaces only the source of the package and the two ports. `--write` writes
the figures into the page. Run the program after you change a command of the page, on an idle machine with access to a
package index.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.support import readme, servers, wheels
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "tutorial.md"
BEGIN, END = "<!-- newcomer: begin -->\n", "<!-- newcomer: end -->\n"
PARTS = {
    (1,): "1: create the environment, and install the packages",
    (2, 3, 4, 5, 6, 7): "2 to 7: until the service accepts the token through nginx",
    (8, 9): "8 and 9: refuse and revoke, including the wait of 5 s",
}
"""The steps of the page that each row of the table adds up, and the description of the row."""

_HIDDEN = {"DJANGO_SETTINGS_MODULE", "PYTHONPATH", "VIRTUAL_ENV", "INSTACCESS_DATABASE", "PYTHONDONTWRITEBYTECODE"}


class Step(NamedTuple):
    """A numbered section of the page, and the code blocks of this section."""

    number: int
    blocks: list[readme.Block]

    @property
    def commands(self) -> list[str]:
        code = [block.code for block in self.blocks if block.action in {"run", "serve"}]
        return "".join(code).splitlines()


class Run(NamedTuple):
    """The result of a run. The keys of both dictionaries are the numbers of the steps.

    Attributes:
        outputs: the standard output of each `run` block of the step.
        seconds: the time of the commands, in seconds. The start of a server lasts until its port accepts connections.
        log: the output of the project's server.
        folder: the folder, which contains the environment and the project.
        environment: the environment variables of the commands.
    """

    outputs: dict[int, list[str]]
    seconds: dict[int, float]
    log: str
    folder: Path
    environment: Mapping[str, str]

    def follow(self, command: str) -> str:
        """Run a command in the first terminal after the end of the tutorial. Returns what the terminal shows."""
        return subprocess.run(
            ["bash", "-c", f". .venv/bin/activate\n{command}"],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=servers.PATIENCE,
            check=False,
        ).stdout


def steps(page: str) -> list[Step]:
    """Return the numbered sections of the tutorial."""
    sections = re.findall(r"^## (\d+)\. .*?\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return [Step(int(number), readme.blocks(text)) for number, text in sections]


def _replace_ports(text: str, ports: Mapping[str, int]) -> str:
    for port, free in ports.items():
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}")
    return text


def _lines(block: readme.Block, ports: Mapping[str, int]) -> list[str]:
    """Return the shell commands that carry out a code block of the tutorial."""
    action, target, documented = block
    code = _replace_ports(documented, ports)
    if action == "run":
        return [code, r"printf '\0'"]
    if action == "serve":
        # The last line of the code block starts the server. `exec` replaces the subshell with the server. Without
        # `exec`, the `kill` at the end of the script would end only the subshell.
        *before, command = code.strip().splitlines()
        started = "\n".join([*before, f"exec {command}"])
        connect = f"(: </dev/tcp/127.0.0.1/{ports[target]}) 2>/dev/null"
        return [
            f"(\n{started}\n) >{target}.log 2>&1 &",
            f"until {connect}; do kill -0 $!; sleep 0.1; done",
        ]
    redirect = {"write": ">", "append": ">>"}[action]
    return [f"cat {redirect}{target} <<'END OF THE FILE'\n{code}END OF THE FILE"]


def _script(page: str, ports: Mapping[str, int]) -> str:
    """Return a shell script that follows the page.

    The script prints byte 0 after each `run` block, and byte 1 after each step.
    """
    lines = ["set -e", "trap 'kill $(jobs -p)' EXIT"]
    for step in steps(page):
        for block in step.blocks:
            lines += _lines(block, ports)
        lines.append(r"printf '\1'")
    return "\n".join(lines)


def _follow(script: str, folder: Path, environment: Mapping[str, str]) -> tuple[list[str], list[float]]:
    """Run the script. Returns the output and the time of each step, in seconds.

    Raises:
        RuntimeError: a command failed. The text contains the output of all commands and servers.
    """
    output, ends = b"", [time.monotonic()]
    # Write stderr to a file, so that the messages of commands don't mix with the bytes that the script prints.
    with (folder / "stderr.log").open("w+") as messages:
        command = ["timeout", "600", "bash", "-c", script]
        with subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=messages
        ) as process:
            assert process.stdout is not None
            try:
                while chunk := os.read(process.stdout.fileno(), 65536):
                    output += chunk
                    ends += [time.monotonic()] * chunk.count(b"\1")
            except KeyboardInterrupt:
                process.terminate()
                raise
    if process.returncode:
        logs = "".join(log.read_text() for log in sorted(folder.glob("*.log")))
        raise RuntimeError(f"The tutorial failed:\n{output.decode()}\n{logs}")
    return output.decode().split("\1")[:-1], [end - start for start, end in pairwise(ends)]


@contextmanager
def run(wheel: Path, *, offline: bool) -> Iterator[Run]:
    """Follow the tutorial in an empty folder, which is deleted at the end of the context.

    Args:
        wheel: the wheel of this package, which `pip install django-instaccess` installs.
        offline: whether the packages of this Python environment are used as the dependencies. If false, pip downloads
            the dependencies.
    """
    page = PAGE.read_text(encoding="utf-8")
    ports = {"8000": servers.free_port(), "8080": servers.free_port()}
    environment = {name: value for name, value in os.environ.items() if name not in _HIDDEN}
    # The tutorial runs `python3`. Use the Python of the tests, because `offline` uses the packages of the tests.
    environment["PATH"] = os.pathsep.join([str(Path(sys.base_prefix, "bin")), environment["PATH"], "/usr/sbin"])
    if offline:
        environment |= wheels.offline_installation(wheel)
    else:
        environment |= {"PIP_FIND_LINKS": str(wheel.parent), "PIP_NO_CACHE_DIR": "1"}
    # Don't use pytest's temporary directory, which only its owner can enter. If root starts nginx, the workers run as
    # another user.
    with tempfile.TemporaryDirectory(prefix="instaccess-tutorial-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        [example] = re.findall(r"\[nginx\.conf\]\((\S+)\)", page)
        # Copy the file that the tutorial asks the reader to download.
        (folder / "nginx.conf").write_text(_replace_ports((PAGE.parent / example).read_text(), ports))
        outputs, seconds = _follow(_script(page, ports), folder, environment)
        numbers = [step.number for step in steps(page)]
        yield Run(
            {number: output.split("\0")[:-1] for number, output in zip(numbers, outputs, strict=True)},
            dict(zip(numbers, seconds, strict=True)),
            (folder / "8000.log").read_text(),
            folder,
            environment,
        )


def count_commands(page: str) -> dict[str, int]:
    """Return the number of commands for each row of the table."""
    found = {step.number: len(step.commands) for step in steps(page)}
    return {title: sum(found[number] for number in numbers) for numbers, title in PARTS.items()}


def table(page: str, seconds: Mapping[int, float]) -> str:
    """Return the counts of commands and the measured times as a table in Markdown."""
    counts = count_commands(page)
    times = {title: round(sum(seconds[number] for number in numbers)) for numbers, title in PARTS.items()}
    rows = [("step", "commands", "time of the commands"), ("---", "---", "---")]
    rows += [(title, str(counts[title]), f"{times[title]} s") for title in counts]
    rows += [("all", str(sum(counts.values())), f"{sum(times.values())} s")]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def write(text: str) -> None:
    """Write the figures into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + text + END + rest.partition(END)[2], encoding="utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        wheel = wheels.build_wheel(Path(folder))
        with run(wheel, offline=False) as result:
            [version] = re.findall(r"(?m)^version = (\d+\.\d+)", (result.folder / ".venv/pyvenv.cfg").read_text())
            text = (
                f"Measured on {datetime.now(UTC).date()} with Python {version} and {os.cpu_count()} CPU cores:\n\n"
                + table(PAGE.read_text(encoding="utf-8"), result.seconds)
            )
    sys.stdout.write(text)
    if "--write" in sys.argv[1:]:
        write(text)


if __name__ == "__main__":
    main()
