"""A script that reads keys and issued tokens while the replica doesn't contain a revocation yet."""

import io
import json
import shutil
import time

from tests.support import subproject

if __name__ == "__main__":
    subproject.set_up()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.db import connections
    from django.test import Client

    from instaccess.audit import rows
    from instaccess.issuer import issuing
    from instaccess.keys import lifecycle, ring
    from instaccess.models import IssuedToken, Key

    # The replica doesn't receive any change after this copy, so a read from the replica would return old rows.
    connections.close_all()
    shutil.copy(connections["default"].settings_dict["NAME"], connections["replica"].settings_dict["NAME"])
    first = {use: ring.load()._current(use).kid for use in Key.Use}
    user = get_user_model().objects.create_user("ada")

    def issue() -> IssuedToken:
        return issuing.issue(user=user, origin=issuing.Origin("canvas.example.edu"), now=time.time())[0]

    def listed() -> dict[str, str]:
        out = io.StringIO()
        call_command("instaccess_keys", "list", "--json", stdout=out)
        return {key["kid"]: key["status"] for key in json.loads(out.getvalue())}

    revoked_row = issue()
    live = rows.live_tokens().count()
    done = lifecycle.revoke(first[Key.Use.SIGNING], reason="laptop stolen")
    served = [key["kid"] for key in Client().get("/internal/services/jwks").json()["keys"]]
    subproject.print_result(
        {
            "replica shows the revoked key as": Key.objects.get(kid=first[Key.Use.SIGNING]).status,
            "replica shows tokens": IssuedToken.objects.count(),
            "live tokens": live,
            "tokens marked": done.tokens,
            "audit has": IssuedToken.objects.using("default").exclude(revoked_at=None).get().pk == revoked_row.pk,
            "revoked key is in the ring": first[Key.Use.SIGNING] in ring.current_ring().verification_keys(),
            "revoked key is published": first[Key.Use.SIGNING] in served,
            "signs now": issue().signing_kid == done.successor.kid,
            "listed": listed()[first[Key.Use.SIGNING]],
            "rotates": lifecycle.rotate(Key.Use.SIGNING, force=True).retired.kid == done.successor.kid,
        }
    )
