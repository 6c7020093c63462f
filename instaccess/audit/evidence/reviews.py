"""Reviews: signed statements that an operator has reviewed problems in the audit log.

`verify` doesn't fail because of a reviewed problem, but shows the review. A review contains the ids of the affected
audit rows and a digest of their contents. A further change to these rows is therefore a new problem. An attacker who
can only write to the database can't create a review. If the attacker deletes a review, `verify` fails again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple

from django.db import router
from django.db.models import QuerySet

from ...exceptions import AuditAltered
from ...logs import get_logger
from ...models import IncidentReview
from ..batches import in_batches
from ..rows import current_time
from . import signatures
from .report import Finding, Incident, Kind, Problem, state
from .statements import EvidenceKeys, Review, next_number, sha256

logger = get_logger("instaccess.audit")


def reviews() -> QuerySet[IncidentReview]:
    """Return all reviews, ordered by number."""
    return IncidentReview.objects.using(router.db_for_write(IncidentReview)).order_by("number")


def record_review(problems: Sequence[Problem], keys: EvidenceKeys, *, by: str, reason: str) -> Review:
    """Record that an operator has reviewed problems that `verify` has found, and return the review.

    Args:
        by: the name of the operator.
        reason: the operator's explanation of the problems.

    Raises KeyUnavailable or UnsealError if there is no usable signing key, and IntegrityError if another process
    created a review at the same time.
    """
    text = json.dumps([astuple(problem) for problem in problems])
    last, taken = _last(keys)
    review = Review(
        number=next_number(last, taken),
        by=by,
        reason=reason,
        problems=sha256(text),
        reviewed_at=int(current_time().timestamp()),
    )
    row = IncidentReview(number=review.number, jws=signatures.sign(review, keys), problems=text)
    signatures.insert(row, keys)
    logger.warning(
        "review %(review)d: %(problems)d problems reviewed by=%(by)r reason=%(reason)r",
        review=review.number,
        problems=len(problems),
        by=by,
        reason=reason,
    )
    return review


def load(keys: EvidenceKeys) -> tuple[list[Incident], dict[int, Finding]]:
    """Load all reviews.

    Returns the valid reviews, and a mapping from the number of each invalid review to the problem with this review.
    """
    incidents, unusable = [], {}
    for row in reviews():
        try:
            review = signatures.read_review(row, keys)
        except AuditAltered as error:
            unusable[row.number] = Finding(Kind.REVIEW, state(signatures.covered_bytes(row), row.mac), error.detail)
            continue
        problems = (Problem(Kind(kind), *values) for kind, *values in json.loads(row.problems))
        incidents.append(Incident(review, tuple(problems)))
    return incidents, unusable


def find_missing(latest: int, incidents: Sequence[Incident], unusable: dict[int, Finding]) -> Iterator[int]:
    """Yield the numbers of reviews that were deleted.

    Args:
        latest: the highest number of a review that any checkpoint contains.
        incidents: the valid reviews.
        unusable: the invalid reviews, by number.
    """
    present = {incident.review.number for incident in incidents}
    for number in range(1, max(present | {latest}) + 1):
        if number not in present and number not in unusable:
            yield number


def last_number(keys: EvidenceKeys) -> int:
    """Return the number of the latest review that can be read; 0 if there is no such review."""
    return _last(keys)[0]


def _last(keys: EvidenceKeys) -> tuple[int, set[int]]:
    """Return the number of the latest readable review, and the numbers of later reviews that can't be read."""
    taken: set[int] = set()
    for row in in_batches(reviews(), 1, latest_first=True):
        try:
            return signatures.read_review(row, keys).number, taken
        except AuditAltered:
            taken.add(row.number)
    return 0, taken
