"""A script that uses the functions of the audit log, and prints their results.

A function that uses the database `default` would raise ImproperlyConfigured.
"""

import io
import time
from datetime import timedelta
from typing import Any

from tests.support import subproject

if __name__ == "__main__":
    subproject.set_up("second")
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.db import transaction
    from django.utils import timezone
    from oauth2_provider.models import get_access_token_model

    from instaccess import audit, keys
    from instaccess.audit import refusal_counts, writability
    from instaccess.conf import conf
    from instaccess.exceptions import AuditError
    from instaccess.issuer import Origin, issue
    from instaccess.models import IssuedToken, RefusalCount
    from instaccess.web import Kind

    user = get_user_model().objects.create_user("ada")
    day = 86_400
    facts: dict[str, Any] = {}

    def issue_token(age: float = 0) -> IssuedToken:
        return issue(user=user, origin=Origin(canvas_domain="canvas.example.edu"), now=time.time() - age)[0]

    def run(*arguments: str) -> str:
        out = io.StringIO()
        call_command("instaccess_tokens", *arguments, stdout=out)
        return out.getvalue()

    issue_token(3 * day)
    single, rest = issue_token(), issue_token()
    try:
        with transaction.atomic(using="second"):
            issue_token()
    except AuditError as error:
        facts["error in a transaction"] = str(error)
    facts["issued"] = audit.issued_tokens().count()

    chosen = audit.revocable_tokens().filter(pk=single.pk)
    facts["revoked"] = audit.revoke(chosen, keks=conf.key_encryption_keys, reason="laptop lost")
    get_access_token_model().objects.create(user=user, token="token", expires=timezone.now() + timedelta(hours=1))
    revoked = audit.revoke_with_oauth2_tokens(
        audit.revocable_tokens(), [user], keks=conf.key_encryption_keys, reason="laptop lost"
    )
    facts["revoked with OAuth2 tokens"] = (revoked.tokens, revoked.oauth2_tokens)

    run("seal")
    facts["verified"] = audit.verify(keys.evidence_keys()).summary
    facts["names"] = audit.erase_name(single.user_uuid, keks=conf.key_encryption_keys, by="root")
    facts["exported"] = len(run("export", "--format", "jsonl").splitlines())
    run("prune", "--older-than", "1d", "--force")
    facts["kept"] = audit.issued_tokens().count()
    facts["runs"] = {each.command: each.result for each in audit.maintenance_runs()}
    facts["measured"] = len(list(audit.measure()))

    kind = Kind(int(time.time()) // 3600, "issuer", "method", "", "")
    refusal_counts.add({kind: 2})
    with transaction.atomic(using="second"):
        refusal_counts.add({kind: 3})
    refusal_counts.trim()
    facts["refusals"] = RefusalCount.objects.get().count

    writability.try_insert()
    audit.check_writable()
    audit.check_database()
    facts["rows after the insert"] = audit.issued_tokens().count()
    subproject.print_result(facts)
