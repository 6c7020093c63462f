"""The contents of signed statements about the audit log: of checkpoints, prune markers and reviews."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from jwcrypto.jwk import JWK

from ...conf import KeyEncryptionKey


@dataclass(frozen=True, slots=True)
class EvidenceKeys:
    """The keys that sign, authenticate and check the tamper evidence; `keys.evidence_keys()` builds them.

    Attributes:
        keks: the key-encryption keys. HMACs are computed with the first one and checked with any of them.
        verification: the public keys of all signing keys that ever existed, as a mapping from kid to key. Revoked and
            expired keys are included, because they signed checkpoints too.
        sign: a function that signs with the current signing key. The arguments are the payload and the `typ` of the
            JWS header. Returns a compact JWS. Raises KeyUnavailable or UnsealError if there is no usable signing key.
    """

    keks: Sequence[KeyEncryptionKey]
    verification: Mapping[str, JWK]
    sign: Callable[[bytes, str], str]


@dataclass(frozen=True, slots=True)
class Statement:
    """The contents of a checkpoint.

    Attributes:
        number: the number of the checkpoint, from 1 on.
        previous: the digest of the previous checkpoint; empty for the first checkpoint.
        first, last: the ids of the first and the last covered row.
        rows: the number of covered rows.
        digest: the hexadecimal SHA-256 of `previous`, a line feed and the index, which lists the rows.
        altered: the number of rows whose HMAC didn't match when the checkpoint was created. The index marks these
            rows.
        reviews: the number of the latest review when the checkpoint was created; 0 if there was none.
        sealed_at: when the checkpoint was created, in seconds since the epoch.
    """

    number: int
    previous: str
    first: int
    last: int
    rows: int
    digest: str
    altered: int
    reviews: int
    sealed_at: int


@dataclass(frozen=True, slots=True)
class Marker:
    """The contents of a prune marker: the rows up to the last row of a checkpoint were pruned.

    Attributes:
        number: the number of the last pruned checkpoint.
        last: the id of the last row of this checkpoint.
        digest: the digest of this checkpoint; the next checkpoint is chained to the digest.
        rows: the number of rows pruned so far, by this and all earlier prunings.
        altered: a description of the tampering found among the pruned rows; empty if there was none.
        pruned_at: when the rows were pruned, in seconds since the epoch.
    """

    number: int
    last: int
    digest: str
    rows: int
    altered: str
    pruned_at: int


@dataclass(frozen=True, slots=True)
class Review:
    """The contents of a review: an operator has reviewed problems that `verify` found.

    Attributes:
        number: the number of the review, from 1 on.
        by: the operator.
        reason: what the operator found out or did.
        problems: the hexadecimal SHA-256 of the list of problems.
        reviewed_at: when the problems were reviewed, in seconds since the epoch.
    """

    number: int
    by: str
    reason: str
    problems: str
    reviewed_at: int


START = Marker(number=0, last=0, digest="", rows=0, altered="", pruned_at=0)
"""The beginning of the chain if no rows have been pruned."""


def chain_digest(previous: str, index: str) -> str:
    """Compute the digest of a checkpoint, which the next checkpoint contains as `previous`."""
    return sha256(f"{previous}\n{index}")


def next_number(last: int, taken: Collection[int]) -> int:
    """Return the number after `last`, leaving out the numbers of statements that can't be read."""
    number = last + 1
    while number in taken:
        number += 1
    return number


def sha256(text: str) -> str:
    """Compute the hexadecimal SHA-256 of a string."""
    # SQLite can store bytes in a text column. Converting bytes with `str` makes a comparison fail instead of raising
    # TypeError.
    return hashlib.sha256(str(text).encode("utf-8", "surrogatepass")).hexdigest()
