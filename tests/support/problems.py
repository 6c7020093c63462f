"""Functions that read the only problem in a report of `verify`."""

from __future__ import annotations

from instaccess.audit import Problem, Report


def only_problem(report: Report) -> Problem:
    """Return the problem of a report. Asserts that the report contains exactly one problem."""
    assert report.more == 0
    [problem] = report.problems
    return problem


def only_row(report: Report) -> int:
    """Return the id of the audit row with a problem. Asserts that exactly one row has a problem."""
    problem = only_problem(report)
    assert (problem.first, problem.count) == (problem.last, 1)
    return problem.first
