"""Tests of the OpenAPI schema that drf-spectacular generates for projects with the app, and of docs/openapi.yaml."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import yaml

from instaccess import web
from instaccess.conf import SCOPE
from tests.projects.described import settings as described
from tests.support import openapi, readme, subproject
from tests.support.openapi import PAGE
from tests.support.paths import ROOT

PATH = "/api/v1/inst_access_tokens"
SERVICE = {"DEFAULT_AUTHENTICATION_CLASSES": ["instaccess.service.InstAccessAuthentication"]}
COURSES = {
    "/courses/app/": [{"instAccessToken": []}],
    "/courses/default/": [{"instAccessToken": []}],
    "/courses/described/": [{"ownScheme": []}],
    "/courses/subclass/": [{"instAccessTokenOwnAuthentication": []}],
}
ISSUE = {PATH: [{"oauth2AccessToken": [SCOPE]}]}
_HTML = {"DEFAULT_RENDERER_CLASSES": [f"rest_framework.renderers.{n}Renderer" for n in ("BrowsableAPI", "JSON")]}

# Each tuple contains the changes to the project of a plain issuer, and the expected security of each path.
PROJECTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "an issuer": ({}, ISSUE),
    "an issuer with OpenAPI 3.1": ({"spectacular": {"OAS_VERSION": "3.1.0"}}, ISSUE),
    "an issuer with other defaults of the framework": (
        {
            "rest_framework": {
                **_HTML,
                "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.AcceptHeaderVersioning",
                "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.LimitOffsetPagination",
                "PAGE_SIZE": 5,
                "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
            },
            "spectacular": {"COMPONENT_SPLIT_REQUEST": True, "ENABLE_LIST_MECHANICS_ON_NON_2XX": True},
        },
        ISSUE,
    ),
    "an issuer with OAuth2 on another server": (
        {"urls": "issuer_only_urls"},
        {f"/canvas{PATH}": [{"oauth2AccessToken": []}]},
    ),
    "an issuer that is also a service": ({"urls": "both_urls", "rest_framework": SERVICE}, {**ISSUE, **COURSES}),
    "a service": (
        {"apps": ["instaccess.service"], "urls": "service_urls", "rest_framework": SERVICE},
        COURSES,
    ),
    "a service without an entry in INSTALLED_APPS": (
        {"apps": [], "urls": "service_urls", "rest_framework": SERVICE},
        COURSES,
    ),
}


def describe(**question: Any) -> Any:
    """Return the schema of a project, and the messages of `spectacular --fail-on-warn --validate` and `check`."""
    return subproject.run_with_question(
        "tests.projects.described.ask", settings="tests.projects.described.settings", question=question
    )


@cache
def documented() -> dict[str, Any]:
    schema: dict[str, Any] = yaml.safe_load(PAGE.read_text(encoding="utf-8"))
    return schema


def operation() -> dict[str, Any]:
    post: dict[str, Any] = documented()["paths"][PATH]["post"]
    return post


class TestTheSchemaOfAProject:
    @pytest.mark.parametrize("project", PROJECTS)
    def test_schema_of_a_project_causes_no_warning_and_has_the_security_of_each_path(self, project):
        question, paths = PROJECTS[project]

        result = describe(**question)

        assert result["problems"] == ""
        assert result["checks"] == []
        schema = result["schema"]
        assert {path: methods.popitem()[1]["security"] for path, methods in schema["paths"].items()} == paths
        required = {name for security in paths.values() for each in security for name in each}
        assert set(schema["components"]["securitySchemes"]) == required

    def test_service_without_an_entry_in_installed_apps_loads_no_models_for_its_schema(self):
        question, _ = PROJECTS["a service without an entry in INSTALLED_APPS"]

        assert describe(**question)["loads_models"] is False

    def test_schema_follows_the_settings_of_the_rate_limit(self):
        def responses(**settings: Any) -> dict[str, Any]:
            schema = describe(instaccess=settings)["schema"]
            found: dict[str, Any] = schema["paths"][PATH]["post"]["responses"]
            return found

        default = responses()
        with_403 = responses(THROTTLE_STATUS=403)
        without = responses(THROTTLE_LIMIT=None)

        assert list(default["403"]["content"]) == ["application/json"]
        assert list(default["429"]["content"]) == ["text/plain"]
        assert "429" not in with_403 | without
        assert sorted(with_403["403"]["content"]) == ["application/json", "text/plain"]
        assert list(without["403"]["content"]) == ["application/json"]
        # If both refusals have the status 403, one description covers the InstAccess token and the rate limit.
        alone = default["403"]["description"]
        assert with_403["403"]["description"] == f"{alone} Or: The rate limit of the access token was exceeded."
        assert without["403"]["description"] == alone
        cost = with_403["403"]["headers"]["X-Request-Cost"]
        assert cost["description"].endswith("The header is absent if the limit was exceeded.")
        assert "required" not in cost
        assert default["403"]["headers"]["X-Request-Cost"]["required"] is True
        assert [status for status, each in with_403.items() if "Retry-After" in each["headers"]] == ["503"]
        assert not any("X-Rate-Limit-Remaining" in each["headers"] for each in without.values())

    def test_schema_has_the_access_token_as_a_parameter_if_the_settings_allow_tokens_in_parameters(self):
        schema = describe(instaccess={"ALLOW_TOKEN_IN_PARAMETERS": True})["schema"]

        names = [parameter["name"] for parameter in schema["paths"][PATH]["post"]["parameters"]]
        assert names == ["access_token", "as_user_id", "unencrypted"]

    def test_urls_in_the_settings_of_drf_spectacular_replace_the_urls_of_the_project(self):
        urls = {"OAUTH2_AUTHORIZATION_URL": "https://login.example/a", "OAUTH2_TOKEN_URL": "https://login.example/t"}

        schema = describe(spectacular=urls, urls="issuer_only_urls")["schema"]

        flows = schema["components"]["securitySchemes"]["oauth2AccessToken"]["flows"]
        assert flows["authorizationCode"]["authorizationUrl"] == "https://login.example/a"
        assert {flow["tokenUrl"] for flow in flows.values()} == {"https://login.example/t"}

    def test_project_that_does_not_use_drf_spectacular_never_imports_drf_spectacular(self):
        program = (
            "import sys, django\n"
            "django.setup()\n"
            "import testproject.urls\n"
            "ours = [name for name in sys.modules if name.startswith('instaccess.') and name.endswith('.openapi')]\n"
            "print([*ours, *(name for name in sys.modules if 'spectacular' in name)])\n"
        )
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "testproject.settings"}

        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )

        # This module may be loaded, because it only contains the function that imports the descriptions.
        assert ast.literal_eval(done.stdout) == ["instaccess.web.openapi"]


class TestTheDocumentedSchema:
    def test_documented_schema_is_the_schema_that_the_code_generates(self):
        assert PAGE.read_text(encoding="utf-8") == openapi.generate(), "run `make openapi`"

    def test_documented_schema_has_one_operation_and_the_two_security_schemes(self):
        assert {path: list(methods) for path, methods in documented()["paths"].items()} == {PATH: ["post"]}
        assert set(documented()["components"]["securitySchemes"]) == {"oauth2AccessToken", "instAccessToken"}
        assert operation()["security"] == [{"oauth2AccessToken": [SCOPE]}]

    def test_parameters_are_optional_and_can_be_in_the_query_or_in_a_form(self):
        query = {each["name"]: each.get("required", False) for each in operation()["parameters"]}
        body = operation()["requestBody"]

        assert query == {"as_user_id": False, "unencrypted": False}
        assert body.get("required", False) is False
        assert set(body["content"]) == {"application/x-www-form-urlencoded", "multipart/form-data"}
        for form in body["content"].values():
            assert set(form["schema"]["properties"]) == set(query)
            assert "required" not in form["schema"]

    def test_documented_responses_are_the_responses_of_the_wire_contract(self):
        """Compare the statuses and the exact bodies in the table of the contract with the schema."""
        section = readme.section("§1 Issue a token", readme.page("wire-contract.md"))
        [rows] = [rows for rows in readme.tables(section) if len(rows[0]) == 4 and "403" in rows[0][1]]
        statuses = {status for row in rows for status in re.findall(r"\b[245]\d\d\b", row[1])}
        bodies = {(row[1].strip("*")[:3], readme.code(row[2])[0]) for row in rows if readme.code(row[2])}

        responses = operation()["responses"]
        assert statuses | {"400"} == set(responses)
        examples = {
            (status, web.json_response(example["value"], status=int(status)).content.decode())
            for status, response in responses.items()
            for example in response["content"].get("application/json", {}).get("examples", {}).values()
            if status not in {"201", "400"}
        }
        assert examples == {(status, body) for status, body in bodies if status != "201"}

    @pytest.mark.parametrize(
        ("header", "required", "optional"),
        [
            ("Cache-Control", ["201", "400", "401", "403", "429", "503"], []),
            ("X-Request-Cost", ["201", "400", "401", "403", "503"], []),
            ("X-Rate-Limit-Remaining", [], ["201", "400", "401", "403", "429", "503"]),
            ("WWW-Authenticate", [], ["401"]),
            ("Retry-After", ["429", "503"], []),
        ],
    )
    def test_each_documented_response_has_the_headers_of_the_wire_contract(self, header, required, optional):
        found = {s: r["headers"][header] for s, r in operation()["responses"].items() if header in r["headers"]}

        assert [status for status in sorted(found) if found[status].get("required")] == required
        assert [status for status in sorted(found) if not found[status].get("required")] == optional

    def test_documented_throttled_response_has_the_exact_text_and_ends_with_a_newline(self):
        schema = operation()["responses"]["429"]["content"]["text/plain"]["schema"]

        assert schema["enum"] == [web.THROTTLED[429]]


class TestTheDocumentedSteps:
    TEXT = readme.page("openapi.md")

    def snippet(self, language: str) -> str:
        [code] = [snippet.code for snippet in readme.snippets(self.TEXT) if snippet.language == language]
        return code

    def test_documented_settings_are_the_settings_of_the_tested_projects(self):
        names: dict[str, Any] = {"INSTALLED_APPS": []}
        exec(self.snippet("python"), names)

        assert set(names["INSTALLED_APPS"]) <= set(described.INSTALLED_APPS)
        assert names["REST_FRAMEWORK"].items() <= described.REST_FRAMEWORK.items()

    def test_documented_command_writes_a_schema_with_the_issuing_endpoint(self, tmp_path):
        python, manage, *arguments = shlex.split(self.snippet("sh"))
        assert (python, manage) == ("python", "manage.py")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": described.__name__}

        subprocess.run([sys.executable, "-m", "django", *arguments], cwd=tmp_path, env=environment, check=True)

        assert list(yaml.safe_load((tmp_path / "schema.yaml").read_text())["paths"]) == [PATH]

    def test_names_of_security_schemes_in_the_documentation_exist(self):
        schemes = set(documented()["components"]["securitySchemes"])

        assert set(re.findall(r"`((?:oauth2|inst)AccessToken)`", self.TEXT)) == schemes
