"""The result of `verify`."""

from __future__ import annotations

from dataclasses import dataclass, field

from .statements import Marker, Statement


@dataclass(slots=True)
class Report:
    """The result of `verify`.

    Attributes:
        rows: number of checked rows.
        sealed: number of checked rows that are covered by a checkpoint.
        checkpoints: number of checked checkpoints.
        last: the contents of the last checkpoint; None if there is no checkpoint.
        pruned: the latest prune marker; None if no rows were pruned.
        broken: a description of the first problem; empty if there is none.
        row: the id of the row with the problem; None if the problem doesn't concern a single row.
        notes: information for the operator that isn't a sign of tampering.
    """

    rows: int = 0
    sealed: int = 0
    checkpoints: int = 0
    last: Statement | None = None
    pruned: Marker | None = None
    broken: str = ""
    row: int | None = None
    notes: list[str] = field(default_factory=list)
