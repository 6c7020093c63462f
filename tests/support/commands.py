"""A script that runs several `manage.py` commands in one process, because each start of Django takes a second.

Usage: python -m tests.support.commands '[["instaccess_keys", "list"], …]'. After each command, one line with the exit
code is printed to standard output and to standard error.
"""

from __future__ import annotations

import json
import os
import sys

from django.core.management import execute_from_command_line

END = "=== exit code "


def main(commands: list[list[str]]) -> None:
    """Run the commands in the given order, and print the exit code of each command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")
    for command in commands:
        code: object = 0
        try:
            execute_from_command_line(["manage.py", *command])
        except SystemExit as exit_:
            code = exit_.code
        for stream in (sys.stdout, sys.stderr):
            stream.write(f"{END}{code}\n")
            stream.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
