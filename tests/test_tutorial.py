"""Tests that follow docs/tutorial.md from an empty folder, with the built wheel, a real nginx and real servers."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from tests.support import answers, newcomer, readme, servers, wheels

PAGE = newcomer.PAGE.read_text(encoding="utf-8")
BLOCKS = readme.blocks(PAGE)
INVALID = answers.INVALID[1].decode()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[newcomer.Run]:
    """Follow the tutorial once, for all tests."""
    with newcomer.run(wheels.build_wheel(tmp_path_factory.mktemp("wheel")), offline=True) as result:
        yield result


@pytest.mark.services
class TestTheTutorial:
    def test_tutorial_installs_the_wheel_in_a_separate_environment(self, run):
        [package] = run.folder.glob(".venv/lib/python*/site-packages/instaccess")

        assert (package / "models.py").exists()
        assert not package.is_symlink()

    def test_tutorial_generates_keys_and_passes_the_system_checks(self, run):
        assert "Generated the current signing key" in run.outputs[4][0]
        assert "System check identified no issues" in run.log

    def test_service_of_the_tutorial_accepts_the_token_through_nginx(self, run, record_property):
        issued, accepted = run.outputs[7]

        assert issued.startswith('{"token":"')
        assert accepted.startswith('{"hello":"ada","token_id":"')
        for numbers, title in newcomer.PARTS.items():
            record_property(f"seconds of step {title}", round(sum(run.seconds[number] for number in numbers), 1))

    def test_service_and_gateway_of_the_tutorial_refuse_other_tokens_with_the_documented_reasons(self, run):
        assert run.outputs[8] == [INVALID * 2]
        assert re.findall(r"refused reason=(\w+)", run.log)[:2] == ["still_encrypted", "other_bearer"]
        assert "`still_encrypted` for the first request" in PAGE
        assert "`other_bearer` for the second" in PAGE

    def test_gateway_of_the_tutorial_refuses_the_token_after_the_revocation(self, run):
        [revoked] = run.outputs[9]

        assert "Revoked 1 live token" in revoked
        assert revoked.endswith(INVALID)
        assert re.findall(r"refused reason=(\w+)", run.log)[2:] == ["revoked"]


COMMAND_MISTAKES = {
    "can't open file": "cd config; python manage.py migrate",
    # The options `-I -S` make the installed packages unavailable, as if the user had not activated the environment.
    "Couldn't import Django": "python -I -S manage.py migrate",
    "no such table": "mv db.sqlite3 backup; python access_token.py; mv backup db.sqlite3",
    "User matching query does not exist": (
        "mv db.sqlite3 backup; python manage.py migrate; python access_token.py; mv backup db.sqlite3"
    ),
    "That port is already in use": "python manage.py runserver --noreload 127.0.0.1:{port}",
    "Address already in use": (
        "sed 's/listen 127.*;/listen 127.0.0.1:{port};/' nginx.conf >used.conf; nginx -p $PWD -c used.conf"
    ),
    "nginx: command not found": "PATH=.venv/bin; nginx -p $PWD -c nginx.conf",
    'nginx.conf" failed (2: No such file or directory)': "cd config; nginx -p $PWD -c nginx.conf",
    "Failed to connect to 127.0.0.1": "curl -sS http://127.0.0.1:{unused}/",
}
"""A mapping from a message that a program prints after a typical mistake to a command that makes the mistake."""

MISTAKES_IN_REQUESTS = [answers.UNAVAILABLE, answers.INSUFFICIENT_SCOPE, answers.INVALID, answers.METHOD_NOT_ALLOWED]
"""The issuer's answers to typical mistakes. The tests in tests/issuer make these mistakes."""

MESSAGE_OF_OTHER_BUILDS = "could not open error log file"
"""The message of an nginx that logs to a system file by default. The nginx of Debian doesn't print this message."""


class TestTheMistakesInTheTutorial:
    @pytest.mark.services
    @pytest.mark.parametrize("message", COMMAND_MISTAKES)
    def test_program_prints_the_documented_message_after_a_mistake(self, run, message):
        with socket.create_server(("127.0.0.1", 0)) as server:
            command = COMMAND_MISTAKES[message].format(port=server.getsockname()[1], unused=servers.free_port())

            assert message in run.follow(command)

    def test_tutorial_contains_the_message_and_the_fix_of_each_mistake(self):
        responses = [re.findall('"message":"(.*?)"', body.decode())[0] for _, body, _ in MISTAKES_IN_REQUESTS]
        [table] = readme.tables(readme.section("If something goes wrong", PAGE))
        documented = [message for cell, _ in table for message in readme.code(cell)]

        assert sorted(documented) == sorted([*COMMAND_MISTAKES, *responses, MESSAGE_OF_OTHER_BUILDS])
        assert all(advice for _, advice in table)


class TestTheFiguresOfTheTutorial:
    def test_tutorial_counts_its_commands_files_and_changed_settings(self):
        commands = [command for step in newcomer.steps(PAGE) for command in step.commands]
        [settings] = [block.code for block in BLOCKS if block.action == "append" and "settings" in block.target]
        changed = re.findall(r"^(\w+) \+?=", settings, re.MULTILINE)
        files = {action: sum(block.action == action for block in BLOCKS) for action in ("write", "append")}

        assert (
            f"You ran {len(commands)} commands, wrote {files['write']} files, added code to {files['append']} files, "
            f"downloaded 1 file, and changed {len(changed)} settings"
        ) in " ".join(PAGE.split())
        assert changed == ["INSTALLED_APPS", "OAUTH2_PROVIDER"]

    def test_table_of_times_counts_the_commands_of_the_page(self):
        figures = PAGE.partition(newcomer.BEGIN)[2].partition(newcomer.END)[0]
        [table] = readme.tables(figures)
        counts = newcomer.count_commands(PAGE)

        assert [(title, int(count)) for title, count, _ in table] == [*counts.items(), ("all", sum(counts.values()))]
        assert all(re.fullmatch(r"\d+ s", seconds) for _, _, seconds in table)
        assert re.match(r"Measured on \d{4}-\d\d-\d\d with Python ", figures)

    def test_program_writes_the_counts_and_the_times_between_two_comments(self, tmp_path, monkeypatch):
        copy = tmp_path / "tutorial.md"
        copy.write_text(PAGE, encoding="utf-8")
        monkeypatch.setattr(newcomer, "PAGE", copy)

        newcomer.write(newcomer.table(PAGE, {number: 0.6 * number for number in range(1, 10)}))

        before, _, rest = copy.read_text(encoding="utf-8").partition(newcomer.BEGIN)
        figures, _, after = rest.partition(newcomer.END)
        assert [row[2] for row in readme.tables(figures)[0]] == ["1 s", "16 s", "10 s", "27 s"]
        assert (before, after) == (PAGE.partition(newcomer.BEGIN)[0], PAGE.partition(newcomer.END)[2])

    def test_tests_of_the_tutorial_run_each_code_block_of_the_page(self):
        followed = [block.code for step in newcomer.steps(PAGE) for block in step.blocks]

        assert followed == [snippet.code for snippet in readme.snippets(PAGE)]
