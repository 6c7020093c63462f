"""The dashboard of this app in the admin. Each user sees only the sections that the user's permissions allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin import AdminSite, ModelAdmin
from django.core.checks import CheckMessage
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _

from ... import audit, keys
from ...exceptions import ConfigError
from ...models import IssuedToken, Key, MaintenanceRun, RefusalCount, ServiceUser
from ..keys.findings import Problem, Severity, bad_setting, find_problems
from ..keys.overview import label_severity
from ..tokens.access_filter import preset_parameters
from . import attention
from .sections import COUNTED, Activity, KeyLine, RunLine, count_activity, list_keys, list_runs, load


@dataclass(frozen=True, slots=True)
class Link:
    """A link to a page for one of the operator's tasks."""

    url: str
    label: str


@dataclass(slots=True)
class Dashboard:
    """The content of the dashboard, for the template.

    Attributes:
        links: the links to the pages for the tasks that the user has permission for.
        sees_keys: whether the user may view keys.
        sees_tokens: whether the user may view issued tokens.
        activity, key_lines, runs: the content of the sections; None if the user may not see the section, or if the
            database can't be read.
        problems: one tuple per problem: the CSS class suffix and the label of the severity, then the problem.
        checks: one tuple per system check message: the CSS class suffix and the label of the severity, then the
            message. The messages aren't translated.
        unavailable: whether a part of the dashboard is missing because the database can't be read.
        tokens_url, keys_url: the addresses of the lists.
    """

    links: list[Link] = field(default_factory=list)
    sees_keys: bool = False
    sees_tokens: bool = False
    activity: Activity | None = None
    key_lines: list[KeyLine] | None = None
    runs: list[RunLine] | None = None
    problems: Sequence[tuple[str, str, Problem]] = ()
    checks: Sequence[tuple[str, str, CheckMessage]] = ()
    unavailable: bool = False
    tokens_url: str = ""
    keys_url: str = ""


class DashboardPage(ModelAdmin):  # type: ignore[type-arg]
    """An admin that can build the dashboard. The tag in the template of the index page calls `build_dashboard`."""

    def build_dashboard(self, request: HttpRequest) -> Dashboard:
        """Build the dashboard for the user of the request.

        If the database can't be read, the dashboard lacks some sections, but no error is raised.
        """
        return _Builder(self.admin_site, request).build()


class _Builder:
    def __init__(self, site: AdminSite, request: HttpRequest) -> None:
        self._site, self._request = site, request
        self._dashboard = Dashboard()
        self._problems: list[Problem] = []

    def build(self) -> Dashboard:
        dashboard = self._dashboard
        dashboard.sees_keys = self._may_view(Key)
        dashboard.sees_tokens = self._may_view(IssuedToken)
        dashboard.links = list(self._list_links())
        runs = self._keep(MaintenanceRun, audit.maintenance_runs) if self._sees_anything else None
        if dashboard.sees_tokens:
            dashboard.tokens_url = self._url(IssuedToken)
            dashboard.activity = self._keep(RefusalCount, count_activity)
            if not self._keep(IssuedToken, attention.is_writable):
                self._problems.append(attention.not_writable())
            self._add_runs(runs, {"verify": attention.VERIFY, "seal": attention.SEAL})
            dashboard.runs = None if runs is None else list_runs(runs)
        if dashboard.sees_keys:
            dashboard.keys_url = self._url(Key)
            self._add_keys()
            self._add_runs(runs, {"rotate": attention.ROTATE})
            messages = self._keep(Key, attention.run_system_checks) or []
            dashboard.checks = [(*label_severity(severity), message) for severity, message in messages]
        self._problems.sort(key=lambda problem: problem.severity)
        dashboard.problems = [(*label_severity(problem.severity), problem) for problem in self._problems]
        return dashboard

    @property
    def _sees_anything(self) -> bool:
        return self._dashboard.sees_keys or self._dashboard.sees_tokens

    def _keep(self, model: Any, query: Any) -> Any:
        """Return the result of a query. If the database can't be read, return None, and set `unavailable`."""
        result = load(model, query)
        self._dashboard.unavailable |= result is None
        return result

    def _add_runs(self, runs: Sequence[MaintenanceRun] | None, commands: dict[str, str]) -> None:
        now = self._keep(MaintenanceRun, audit.current_time) if runs is not None else None
        if runs is not None and now is not None:
            self._problems += attention.check_runs(runs, commands, now=now)

    def _add_keys(self) -> None:
        now = self._keep(Key, keys.current_time)
        if now is None:
            return
        # Count the live tokens separately, so that the page shows the keys even if the table of issued tokens can't
        # be read.
        live = self._keep(IssuedToken, lambda: keys.live_tokens(now=now, limit=COUNTED))
        spikes = self._keep(RefusalCount, lambda: audit.refusal_spikes(now=now))
        try:
            times = keys.lifecycle_times()
            since = now - times.interval
            health = self._keep(Key, lambda: keys.load_health(since=since, now=now, live=live or {}))
            if health is None:
                return
            problems = find_problems(health, now=now, times=times, spikes=spikes or ())
            if not any(problem.severity is Severity.ERROR for problem in problems):
                problems += self._keep(Key, lambda: list(attention.check_issuing())) or []
            self._dashboard.key_lines = list_keys(health, now=now, times=times)
        except ConfigError as error:
            problems = [bad_setting(error)]
        self._problems += problems

    def _list_links(self) -> Any:
        user, url = self._request.user, self._url
        if self._dashboard.sees_tokens:
            if user.has_perm("instaccess.revoke_tokens"):
                yield Link(f"{url(IssuedToken)}?status=live", _("Revoke tokens"))
            night = urlencode(preset_parameters("night"))
            yield Link(f"{url(IssuedToken)}?{night}", _("Find out who had access last night"))
        if self._site.is_registered(IssuedToken) and user.has_perm("instaccess.inspect_tokens"):
            yield Link(url(IssuedToken, "inspect"), _("Inspect a token"))
        if self._dashboard.sees_keys:
            yield Link(url(Key), _("Keys and their timeline"))
        if self._may_view(ServiceUser):
            yield Link(url(ServiceUser), _("Service users of applications"))
        if self._dashboard.sees_tokens:
            yield Link("#instaccess-audit-log", _("Check the audit log"))

    def _may_view(self, model: Any) -> bool:
        if not self._site.is_registered(model):
            return False
        return self._site.get_model_admin(model).has_view_permission(self._request)

    def _url(self, model: Any, page: str = "changelist") -> str:
        name = f"admin:instaccess_{model._meta.model_name}_{page}"
        return reverse(name, current_app=self._site.name)
