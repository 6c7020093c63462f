"""The contents of the signed statements about the audit log: checkpoints, prune markers and reviews."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from jwcrypto.jwk import JWK

from ...conf import KeyEncryptionKey


@dataclass(frozen=True, slots=True)
class EvidenceKeys:
    """The keys that sign, authenticate and check tamper evidence. `keys.evidence_keys()` builds this object.

    Attributes:
        keks: the key-encryption keys. HMACs are computed with the first key and checked with any of the keys.
        verification: a mapping from kid to public key, for all signing keys in the database except keys whose rows
            aren't authentic. Revoked and past keys are included, because these keys signed checkpoints too.
        sign: a function that signs with the current signing key. Its arguments are the payload and the `typ` of the
            JWS header. The function returns a compact JWS, and raises KeyUnavailable or UnsealError if no key is
            usable.
    """

    keks: Sequence[KeyEncryptionKey]
    verification: Mapping[str, JWK]
    sign: Callable[[bytes, str], str]


@dataclass(frozen=True, slots=True)
class Statement:
    """The contents of a checkpoint.

    Attributes:
        number: the number of the checkpoint. The first checkpoint has number 1.
        previous: the digest of the previous checkpoint; empty for the first checkpoint.
        first: the id of the first audit row that the checkpoint covers.
        last: the id of the last audit row that the checkpoint covers.
        rows: the number of audit rows that the checkpoint covers.
        digest: the hexadecimal SHA-256 of `previous`, a line feed and the index, which lists the covered rows.
        altered: the number of covered rows whose HMAC didn't match when the checkpoint was created. The index marks
            these rows.
        reviews: the number of the latest review when `seal` began; 0 if there was no review.
        sealed_at: the time when the checkpoint was created, in seconds since the epoch.
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
    """The contents of a prune marker, which proves that the audit rows up to a checkpoint were pruned.

    Attributes:
        number: the number of the last pruned checkpoint.
        last: the id of the last row of this checkpoint.
        digest: the digest of this checkpoint. The next checkpoint contains the digest as `previous`.
        rows: the number of rows pruned so far, by this and all earlier prunings.
        altered: a description of the tampering found in the pruned rows; empty if no tampering was found.
        pruned_at: the time when the rows were pruned, in seconds since the epoch.
    """

    number: int
    last: int
    digest: str
    rows: int
    altered: str
    pruned_at: int


@dataclass(frozen=True, slots=True)
class Review:
    """The contents of a review, which proves that an operator has reviewed problems that `verify` found.

    Attributes:
        number: the number of the review. The first review has number 1.
        by: the name of the operator.
        reason: the operator's explanation of the problems.
        problems: the SHA-256, in hexadecimal, of the JSON encoding of the reviewed problems.
        reviewed_at: the time of the review, in seconds since the epoch.
    """

    number: int
    by: str
    reason: str
    problems: str
    reviewed_at: int


START = Marker(number=0, last=0, digest="", rows=0, altered="", pruned_at=0)
"""The beginning of the chain of checkpoints if no audit rows have been pruned."""


def chain_digest(previous: str, index: str) -> str:
    """Compute the digest of a checkpoint, which the next checkpoint contains as `previous`."""
    return sha256(f"{previous}\n{index}")


def next_number(last: int, taken: Collection[int]) -> int:
    """Return the lowest free number after `last`. `taken` contains the numbers of statements that can't be read."""
    number = last + 1
    while number in taken:
        number += 1
    return number


def sha256(text: str) -> str:
    """Compute the hexadecimal SHA-256 of a string."""
    # An attacker can store bytes in a text column of SQLite. Convert bytes with `str`, so that the digest doesn't
    # match and the row is reported as modified. Without `str`, this function would raise AttributeError and the check
    # would abort.
    return hashlib.sha256(str(text).encode("utf-8", "surrogatepass")).hexdigest()
