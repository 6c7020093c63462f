"""The problems in a report of `verify`."""

from __future__ import annotations

from instaccess.audit import Problem, Report


def only_problem(report: Report) -> Problem:
    """Return the only problem of a report."""
    assert report.more == 0
    [problem] = report.problems
    return problem


def only_row(report: Report) -> int:
    """Return the id of the only row with a problem."""
    problem = only_problem(report)
    assert (problem.first, problem.count) == (problem.last, 1)
    return problem.first
