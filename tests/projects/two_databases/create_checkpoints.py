"""A script that calls `seal` in a transaction on the second database.

During this call, a second call of `seal`, which simulates another process, creates the same checkpoints. The script
prints the number of checkpoints that the first call created, and the number of all checkpoints.
"""

import dataclasses
import time

import django

from tests.support import subproject

if __name__ == "__main__":
    django.setup()
    from django.core.management import call_command

    # Create the tables here, because `set_up` migrates only the database `default`, which must contain no table.
    call_command("migrate", database="second", verbosity=0, interactive=False)
    subproject.set_up()
    from django.contrib.auth import get_user_model
    from django.db import transaction

    from instaccess import audit, keys
    from instaccess.issuer import Origin, issue

    user = get_user_model().objects.create_user("ada")
    issue(user=user, origin=Origin(canvas_domain="canvas.example.edu"), now=time.time() - 86_400)
    evidence_keys = keys.evidence_keys()

    def sign_after_another_process(payload: bytes, typ: str) -> str:
        if not audit.checkpoints().exists() and payload != b"{}":
            audit.seal(evidence_keys)
        return evidence_keys.sign(payload, typ)

    with transaction.atomic(using="second"):
        done = audit.seal(dataclasses.replace(evidence_keys, sign=sign_after_another_process))
        subproject.print_result({"made": len(done.made), "stored": audit.checkpoints().count()})
