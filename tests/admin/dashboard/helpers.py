"""Functions that read the dashboard, and a wrapper that simulates a missing table."""

from __future__ import annotations

import html
import re
from typing import Any

from django.db import OperationalError
from django.urls import reverse

DASHBOARD = reverse("admin:app_list", args=["instaccess"])


def dashboard(client: Any, url: str = DASHBOARD) -> str:
    """Return the text of the dashboard on one line without HTML tags, or an empty string if there is no dashboard."""
    response = client.get(url)
    assert response.status_code == 200
    match = re.search(r'<div class="instaccess-dashboard">.*?(?=<div id="content-main")', body(response), re.DOTALL)
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", match[0])).split()) if match else ""


def links(client: Any, url: str = DASHBOARD) -> dict[str, str]:
    """Return the links to the tasks of an administrator, as a mapping from the label to the URL."""
    match = re.search(r'<nav class="instaccess-jobs".*?</nav>', body(client.get(url)), re.DOTALL)
    found = re.findall(r'<a href="([^"]*)">([^<]*)</a>', match[0]) if match else []
    return {html.unescape(label): html.unescape(address) for address, label in found}


def body(response: Any) -> str:
    return str(response.content.decode())


def without_table(table: str) -> Any:
    """Return an `execute_wrapper` that fails each statement on this table, as if the table were missing."""

    def execute(run: Any, sql: str, *args: Any) -> Any:
        if table in sql:
            raise OperationalError(f"no such table: {table}, password=hunter2")
        return run(sql, *args)

    return execute
