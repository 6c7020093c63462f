"""Tests that compare the stored formats of checkpoints, prune markers and reviews with literals.

If one of these tests fails, `verify` would report existing checkpoints, prune markers or reviews as modified after an
upgrade. A new format needs a new label, and the package must still read the old format.
`tests/audit/test_row_hmac.py` tests the format of audit rows and their HMACs.
"""

from __future__ import annotations

import json
from typing import Any

from instaccess.audit.evidence import checkpoint_index, report, signatures, statements
from instaccess.audit.evidence.report import Collector, Finding, Kind, Problem, Report
from instaccess.conf import KeyEncryptionKey
from instaccess.models import Checkpoint, IncidentReview, PruneMarker

FIRST, LAST = 1_900_000_000_123_456_789, 1_900_000_000_223_456_789
INDEX = f"{FIRST} ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0\n{LAST} unreadable altered"
DIGEST = "6349ccba9a78068859619fcee0831a6c02af96f5688899318f845c428309cd75"


def payload(statement: Any) -> tuple[str, bytes]:
    """Sign a statement. Returns the `typ` header and the payload that were signed."""
    signed: list[tuple[str, bytes]] = []

    def sign(data: bytes, typ: str) -> str:
        signed.append((typ, data))
        return ""

    signatures.sign(statement, statements.EvidenceKeys([], {}, sign))
    return signed[0]


def hmac_of(row: Checkpoint | PruneMarker | IncidentReview) -> str:
    keys = statements.EvidenceKeys([KeyEncryptionKey(bytes(range(32)))], {}, lambda data, typ: "")
    signatures.authenticate(row, keys)
    return row.mac


class TestCheckpoints:
    def test_format_of_the_index_of_a_checkpoint_never_changes(self):
        entries = [
            checkpoint_index.Entry(FIRST, checkpoint_index.row_digest(b"abc")),
            checkpoint_index.Entry(LAST, checkpoint_index.UNREADABLE, altered=True),
        ]

        assert "\n".join(map(str, entries)) == INDEX
        assert checkpoint_index.parse(INDEX) == entries

    def test_digest_of_a_checkpoint_never_changes(self):
        assert statements.chain_digest("5f" * 32, INDEX) == DIGEST

    def test_payload_of_a_checkpoint_never_changes(self):
        statement = statements.Statement(
            number=7,
            previous="5f" * 32,
            first=FIRST,
            last=LAST,
            rows=2,
            digest=DIGEST,
            altered=1,
            reviews=3,
            sealed_at=1_900_005_000,
        )

        assert payload(statement) == (
            "instaccess-checkpoint",
            b'{"number":7,"previous":"' + b"5f" * 32 + b'","first":1900000000123456789,"last":1900000000223456789,'
            b'"rows":2,"digest":"' + DIGEST.encode() + b'","altered":1,"reviews":3,"sealed_at":1900005000}',
        )

    def test_hmac_of_a_checkpoint_never_changes(self):
        checkpoint = Checkpoint(number=7, jws="e30.e30.AA", index=INDEX)

        assert signatures.covered_bytes(checkpoint) == (
            b'["instaccess-checkpoint", "e30.e30.AA", '
            b'"6107392fc3084bbbc87956d715711f7de736e746aa6d898d4bacd5632eaded7e"]'
        )
        assert hmac_of(checkpoint) == "BvHe6PZZiVlh.9PJ72VY5DYDCd-J7Qqo13PgGQkFRRoqQGzO8KjZn_Gw"

    def test_format_of_an_exported_checkpoint_never_changes(self):
        checkpoint = Checkpoint(number=7, jws="e30.e30.AA", index="1 x")

        assert checkpoint_index.export_checkpoint(checkpoint) == (
            '{"format": "instaccess checkpoint 1", "jws": "e30.e30.AA", "index": "1 x"}'
        )


class TestPruneMarkers:
    def test_payload_of_a_prune_marker_never_changes(self):
        marker = statements.Marker(
            number=7, last=LAST, digest=DIGEST, rows=2, altered="row 1 was modified", pruned_at=1_900_005_000
        )

        assert payload(marker) == (
            "instaccess-prune-marker",
            b'{"number":7,"last":1900000000223456789,"digest":"' + DIGEST.encode() + b'","rows":2,'
            b'"altered":"row 1 was modified","pruned_at":1900005000}',
        )

    def test_hmac_of_a_prune_marker_never_changes(self):
        marker = PruneMarker(number=7, jws="e30.e30.AA")

        assert signatures.covered_bytes(marker) == (
            b'["instaccess-prune-marker", "e30.e30.AA", '
            b'"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]'
        )
        assert hmac_of(marker) == "BvHe6PZZiVlh.qH-CRxqz8r0us1274I6oWhwRY_V5TEIPXnLogxtFsK8"


class TestReviews:
    def test_payload_of_a_review_never_changes(self):
        review = statements.Review(
            number=1, by="ada (command line)", reason="ticket ü", problems=DIGEST, reviewed_at=1_900_005_000
        )

        assert payload(review) == (
            "instaccess-review",
            b'{"number":1,"by":"ada (command line)","reason":"ticket \\u00fc","problems":"' + DIGEST.encode() + b'",'
            b'"reviewed_at":1900005000}',
        )

    def test_hmac_of_a_review_never_changes(self):
        review = IncidentReview(number=1, jws="e30.e30.AA", problems="[]")

        assert signatures.covered_bytes(review) == (
            b'["instaccess-review", "e30.e30.AA", "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"]'
        )
        assert hmac_of(review) == "BvHe6PZZiVlh.DJLreEBo9rOHXbJqwExDhRs57ztUlAx0Pl-wrZY4Oq8"

    def test_digest_of_the_state_of_a_row_never_changes(self):
        assert report.state(b"abc", "key.mac") == "cd70adeb969ff2cc9a096ce44db6052161694ba4e007fad06943730ea6271dbc"

    def test_digest_of_a_problem_never_changes(self):
        found = Report()
        problems = Collector(found)
        for row in (FIRST, LAST):
            problems.add_row(row, [Finding(Kind.MODIFIED, "state", "text")])
        problems.add(7, Finding(Kind.CHECKPOINT, "state", "text"))
        problems.close()

        assert [problem.digest for problem in reversed(found.problems)] == [
            "7d7974e72b03e6d26274b763a7f64349082b1ac63644e809244679e006f95523",
            "48c7de758f7b45a19695599eff4905831a151f2a57d3ac614c94f66a27b5d79a",
        ]

    def test_stored_kinds_of_problems_never_change(self):
        assert [kind.value for kind in Kind] == [
            *("modified", "deleted", "added", "unreadable", "unchecked", "reference", "names"),
            *("checkpoint", "prune_marker", "review"),
        ]

    def test_stored_problems_of_a_review_can_still_be_read(self):
        stored = '[["modified", 1900000000123456789, 1900000000223456789, 2, "c0", "text"]]'

        [[kind, *values]] = json.loads(stored)
        assert Problem(Kind(kind), *values) == Problem(Kind.MODIFIED, FIRST, LAST, 2, "c0", "text")
