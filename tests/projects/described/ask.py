"""A script that generates the OpenAPI schema of a project.

Prints the schema, the messages of drf-spectacular, and whether the models of this package are loaded.
"""

import contextlib
import io
import json
import sys

import django

from tests.support import subproject

if __name__ == "__main__":
    django.setup()
    from django.core.checks import run_checks
    from django.core.management import call_command

    schema, problems = io.StringIO(), io.StringIO()
    # The command fails if the schema causes a warning or is invalid.
    with contextlib.redirect_stderr(problems):
        call_command("spectacular", "--format", "openapi-json", "--fail-on-warn", "--validate", stdout=schema)
    messages = run_checks(include_deployment_checks=True)
    subproject.print_result(
        {
            "schema": json.loads(schema.getvalue()),
            "problems": problems.getvalue(),
            "checks": [str(message) for message in messages if message.id.startswith("drf_spectacular")],
            "loads_models": "instaccess.models" in sys.modules,
        }
    )
