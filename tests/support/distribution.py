"""The command of `make dist`: build and check the files for a package index.

python -m tests.support.distribution dist

Writes the source distribution, the wheel, and the software bill of materials (SBOM) of the wheel in CycloneDX format.
The source distribution and the wheel contain only files that git tracks, and generated metadata. If the commit, the
build tools and the Python version are the same, both files always have the same bytes. You can therefore build the
files and compare them with the published files. The SBOM lists the newest versions of the dependencies on the day of
the build.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

NAME = "django-instaccess"
# Skip pyroma's tests of the URL and the author's email, because the metadata of the package contains neither yet.
PYROMA = ("--min", "10", "--skip-tests", "AuthorEmail,Url")


class BuildError(Exception):
    """An error that reports that the build failed. The message contains the reason."""


def run(*command: str | Path, cwd: Path = ROOT, variables: Mapping[str, str] | None = None) -> str:
    """Run a command, and return its standard output.

    Raises: BuildError: the command failed.
    """
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"This command failed: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def run_tool(module: str, *arguments: str | Path) -> None:
    run(sys.executable, "-m", module, *arguments)


def epoch(tree: Path) -> int:
    """Return SOURCE_DATE_EPOCH, or the time of the last commit, in seconds since 1970."""
    if value := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(value)
    try:
        return int(run("git", "log", "-1", "--format=%ct", cwd=tree))
    except (BuildError, FileNotFoundError) as error:
        raise BuildError(
            "The time of the last commit is unknown. Run this command in a clone of the repository, not in an "
            "unpacked source distribution."
        ) from error


def copy_tracked_files(tree: Path, target: Path) -> None:
    """Copy the files that git tracks. The permissions of the copies do not depend on the umask of this process."""
    for name in run("git", "ls-files", "-z", cwd=tree).split("\0"):
        source = tree / name
        if name and source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / name)
            (target / name).chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def normalize(sdist: Path, time: int) -> None:
    """Rewrite the archive, so that its bytes don't depend on the machine on which the archive was built.

    The new archive has sorted names, the timestamp `time` (in seconds since 1970), fixed permissions, and no user
    names.
    """
    content = io.BytesIO()
    with tarfile.open(sdist) as old, tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            executable = member.isdir() or member.mode & 0o100
            member.mtime, member.mode, member.pax_headers = time, 0o755 if executable else 0o644, {}
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    with sdist.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=time) as compressed:
        compressed.write(content.getvalue())


def build_packages(tree: Path, target: Path) -> tuple[Path, Path]:
    """Build the source distribution of the tree, and the wheel from this source distribution. Returns both paths."""
    time = epoch(tree)
    variables = {"SOURCE_DATE_EPOCH": str(time), "PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", target)
    # Set a fixed umask, because setuptools stores the permissions of generated files, which depend on the umask.
    umask = os.umask(0o022)
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy_tracked_files(tree, Path(folder, "tree"))
            run(*build, "--sdist", cwd=Path(folder, "tree"), variables=variables)
            [sdist] = target.glob("*.tar.gz")
            normalize(sdist, time)
            with tarfile.open(sdist) as archive:
                archive.extractall(folder, filter="data")
            run(*build, "--wheel", cwd=Path(folder, sdist.name.removesuffix(".tar.gz")), variables=variables)
    finally:
        os.umask(umask)
    [wheel] = target.glob("*.whl")
    return sdist, wheel


def check_packages(sdist: Path, wheel: Path) -> None:
    run_tool("twine", "check", "--strict", sdist, wheel)
    run_tool("pyroma", *PYROMA, sdist)
    run_tool("check_wheel_contents", "--config", ROOT / "pyproject.toml", wheel)


def install(wheel: Path, folder: Path, *extras: str) -> Path:
    """Install the wheel, its dependencies and these extras into a new virtual environment.

    Returns the path of the Python interpreter in the environment.
    """
    run_tool("venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    required = f"{wheel}[{','.join(extras)}]" if extras else wheel
    run_tool("pip", "--python", python, "install", "--quiet", "--disable-pip-version-check", required)
    return python


def write_sbom(wheel: Path, python: Path) -> Path:
    """Write the SBOM of the wheel and of its dependencies, which are installed in the environment of `python`.

    The document of cyclonedx-py describes the environment. This function makes the wheel the subject of the document.

    Raises: BuildError: the document doesn't follow the schema of CycloneDX.
    """
    # Import the packages here, because `make test` imports this module but doesn't install the extra `dist`.
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    command = (sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", python)
    document: dict[str, Any] = json.loads(run(*command))
    [subject] = (each for each in document["components"] if each["name"] == NAME)
    document["components"].remove(subject)
    subject["hashes"] = [{"alg": "SHA-256", "content": sha256(wheel.read_bytes()).hexdigest()}]
    # Remove the path of the wheel, because a path on this machine is useless to readers of the document.
    subject["externalReferences"] = []
    subject["purl"] = f"pkg:pypi/{NAME}@{subject['version']}"
    document["metadata"]["component"] = subject
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if error := JsonStrictValidator(SchemaVersion.from_version(document["specVersion"])).validate_str(text):
        raise BuildError(f"The SBOM is not valid: {error}")
    path = wheel.with_name(re.sub(r"-py3-none-any\.whl$", ".cdx.json", wheel.name))
    path.write_text(text, encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Build and check the source distribution, the wheel and the SBOM.")
    parser.add_argument("target", type=Path, help="The folder for the files. Files of an earlier build are deleted.")
    target: Path = parser.parse_args().target.resolve()
    target.mkdir(parents=True, exist_ok=True)
    for path in target.glob("django_instaccess-*"):
        path.unlink()
    try:
        sdist, wheel = build_packages(ROOT, target)
        check_packages(sdist, wheel)
        with tempfile.TemporaryDirectory() as folder:
            sbom = write_sbom(wheel, install(wheel, Path(folder, "venv")))
    except BuildError as error:
        sys.exit(str(error))
    for path in (sdist, wheel, sbom):
        sys.stdout.write(f"{sha256(path.read_bytes()).hexdigest()}  {path.name}\n")


if __name__ == "__main__":
    main()
