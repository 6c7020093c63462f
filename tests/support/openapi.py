"""A command that generates docs/openapi.yaml from the code.

python -m tests.support.openapi

Run the command after you change a parameter, a response or a header of the issuing endpoint.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "openapi.yaml"


def generate() -> str:
    """Return the OpenAPI schema as YAML. Raises CalledProcessError if the schema is invalid or causes a warning."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.projects.described.documentation"}
    environment.pop("SUBPROJECT_QUESTION", None)
    command = [sys.executable, "-m", "django", "spectacular", "--validate", "--fail-on-warn"]
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=120, check=True
    ).stdout


if __name__ == "__main__":
    PAGE.write_text(generate(), encoding="utf-8")
