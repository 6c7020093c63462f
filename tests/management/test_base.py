"""Tests of the function that describes the operator who runs a command."""

from __future__ import annotations

import os
import pwd

from instaccess.management import base

NO_SUCH_UID = 2_000_000_123


class TestTheOperator:
    def test_operator_returns_the_operating_system_user_and_ignores_environment_variables(self, monkeypatch):
        for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "SUDO_USER", "SUDO_UID"):
            monkeypatch.setenv(name, "grace")

        assert base.operator() == f"uid {os.getuid()} ({pwd.getpwuid(os.getuid()).pw_name}), command line"

    def test_operator_returns_the_user_id_if_the_operating_system_user_has_no_name(self, monkeypatch):
        monkeypatch.setattr(os, "getuid", lambda: NO_SUCH_UID)

        assert base.operator() == f"uid {NO_SUCH_UID}, command line"

    def test_operator_replaces_undecodable_bytes_in_the_name_of_the_user(self, monkeypatch):
        entry = pwd.struct_passwd(("ada\udc80", "x", 0, 0, "", "/", "/bin/sh"))
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)

        assert base.operator() == f"uid {os.getuid()} (ada?), command line"

    def test_operator_returns_the_user_in_the_environment_on_a_system_without_user_ids(self, monkeypatch):
        monkeypatch.setenv("LOGNAME", "grace")
        monkeypatch.delattr(os, "getuid")

        assert base.operator() == "grace, command line"
