"""A script that requests tokens while the replica is outdated.

The replica contains rows that the script has deleted, revoked or deactivated on the primary since.
"""

import shutil
from datetime import timedelta

from tests.support import subproject

if __name__ == "__main__":
    subproject.set_up()
    from django.contrib.auth import get_user_model
    from django.core.cache import cache
    from django.db import connections
    from django.test import Client
    from django.utils import timezone
    from oauth2_provider.models import get_access_token_model, get_application_model, get_refresh_token_model

    from instaccess import users
    from instaccess.conf import SCOPE
    from instaccess.issuer import access_tokens, oauth2_validator
    from instaccess.models import ServiceUser

    def update_the_replica():
        connections.close_all()
        shutil.copy(connections["default"].settings_dict["NAME"], connections["replica"].settings_dict["NAME"])

    update_the_replica()
    User, AccessToken = get_user_model(), get_access_token_model()
    people = {name: User.objects.create_user(name) for name in ("ada", "grace", "leaver", "service")}
    tools = {
        name: get_application_model().objects.create(
            name=name, client_type="confidential", authorization_grant_type="client-credentials"
        )
        for name in ("kept", "deleted", "service")
    }
    uuids = {name: users.user_uuid(user) for name, user in people.items()}
    User.objects.filter(username="ada").update(is_superuser=True)
    ServiceUser.objects.using("default").create(application=tools["service"], user=people["service"])

    def make(name, user="ada", tool="kept", **columns):
        return AccessToken.objects.using("default").create(
            token=name,
            user=people.get(user),
            application=tools[tool],
            scope=SCOPE,
            **({"expires": timezone.now() + timedelta(hours=1)} | columns),
        )

    make("good")
    make("revoked")
    make("leaver's", user="leaver")
    make("deleted application's", tool="deleted")
    make("service user's", user=None, tool="service")
    expired = make("expired", expires=timezone.now())
    refresh_token = get_refresh_token_model()(
        user=people["ada"], application=tools["kept"], token="refresh", access_token=expired
    )
    refresh_token.save(using="default")

    update_the_replica()  # The replica doesn't receive the changes below.
    on_the_replica = AccessToken.objects.count()
    make("new")
    AccessToken.objects.using("default").filter(token="revoked").delete()
    User.objects.using("default").filter(username__in=["leaver", "grace"]).update(is_active=False)
    tools["deleted"].delete(using="default")
    ServiceUser.objects.using("default").all().delete()
    get_refresh_token_model().objects.using("default").update(revoked=timezone.now())

    def ask(name, **data):
        cache.clear()  # Empty the buckets, so that the issuer doesn't throttle later requests.
        response = Client(headers={"host": "localhost"}).post(
            "/api/v1/inst_access_tokens", data, headers={"Authorization": f"Bearer {name}"}
        )
        if response.status_code == 201:
            return "issued"
        errors = response.json()["errors"]
        return errors if isinstance(errors, str) else errors[0]["message"]

    def ask_all():
        names = ("good", "new", "revoked", "leaver's", "deleted application's", "service user's", "expired")
        return {name: ask(name) for name in names} | {
            "as a deactivated user": ask("good", as_user_id=people["grace"].pk),
            "as the uuid of a deactivated user": ask("good", as_user_id=f"uuid:{uuids['grace']}"),
        }

    def not_fixed(checksum):
        raise access_tokens.NotFixed

    facts = {
        "tokens on the replica": on_the_replica,
        "usable applications": [
            name for name in ("kept", "deleted") if oauth2_validator.is_usable_client(tools[name].client_id)
        ],
        "statement": ask_all(),
    }
    access_tokens.find = not_fixed
    subproject.print_result(facts | {"query": ask_all()})
