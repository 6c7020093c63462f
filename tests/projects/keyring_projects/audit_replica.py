"""A script that runs commands on the audit log and on the keys while reads go to an outdated replica.

A database router sends the reads to the replica. The script prints the results, and the tables that were read from
the replica.
"""

import io
import re
import shutil
import time
from typing import Any

from tests.support import subproject

if __name__ == "__main__":
    subproject.set_up()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.db import connections
    from django.test import override_settings

    from instaccess import audit, keys
    from instaccess.issuer import issuing
    from instaccess.models import IssuedToken, Key

    # The replica doesn't receive any change after this copy, so a read from the replica would return old rows.
    connections.close_all()
    shutil.copy(connections["default"].settings_dict["NAME"], connections["replica"].settings_dict["NAME"])
    user = get_user_model().objects.create_user("ada")
    now, day = time.time(), 86_400
    read: set[str] = set()

    def record(execute: Any, sql: str, *args: Any) -> Any:
        read.update(re.findall(r'"(instaccess_\w+)"', sql))
        return execute(sql, *args)

    def issue(age: float) -> IssuedToken:
        return issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=now - age)[0]

    def run(*arguments: str) -> list[str]:
        out = io.StringIO()
        call_command(*arguments, stdout=out)
        return out.getvalue().splitlines()

    def problems() -> list[Any]:
        return [(str(each.kind), each.first, each.count) for each in audit.verify(keys.evidence_keys()).problems]

    rows = [issue(age) for age in (3 * day, 3 * day - 1, 2, 1)]
    read.clear()
    with connections["replica"].execute_wrapper(record):
        run("instaccess_tokens", "seal")
        tokens = len(run("instaccess_tokens", "export", "--format", "csv")) - 1
        with connections["default"].cursor() as cursor:
            cursor.execute("UPDATE instaccess_issuedtoken SET jti = 'zzz' WHERE id = %s", [rows[3].pk])
        facts: dict[str, Any] = {"tokens": tokens, "unreadable": problems() == [("unreadable", rows[3].pk, 1)]}
        audit.record_review(audit.verify(keys.evidence_keys()).problems, keys.evidence_keys(), by="ada", reason="x")
        with override_settings(INSTACCESS={"KEY_ENCRYPTION_KEYS": ["A" * 43, "SECRET_KEY"]}):
            # Six HMACs are renewed: of a checkpoint, a review, a row without a checkpoint, and the names in three
            # rows.
            facts["reauthenticated"] = audit.reauthenticate(keys.evidence_keys())
            facts["resealed"] = keys.reseal()
            uuid = rows[0].user_uuid
            facts["uuids found"] = audit.find_uuids(uuid) == {uuid}
            facts["names"] = audit.count_names(uuid)
            run("instaccess_tokens", "erase-name", "--user", uuid)
            facts["names left"] = audit.count_names(uuid)
            facts["revoked"] = audit.revoke(audit.revocable_tokens(), keks=keys.keks_for_revocation(), reason="x")
            run("instaccess_tokens", "prune", "--older-than", "1d", "--force")
            facts["tokens left"] = audit.issued_tokens().count()
            run("instaccess_keys", "rotate", "--force")
            facts["keys"] = Key.objects.using("default").count()
        facts["read from the replica"] = sorted(read)
        # This query reads the replica on purpose, to show that the script records such queries.
        facts["tokens on the replica"] = IssuedToken.objects.count()
    subproject.print_result(facts | {"recorded": sorted(read)})
