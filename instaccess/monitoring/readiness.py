"""Health checks of gateways and services. The checks load keys and the deny list exactly as a request does."""

from __future__ import annotations

from django.db import Error as DbError

from .. import trust
from ..conf import conf
from ..exceptions import InstAccessError
from .findings import Finding, Status, describe
from .probes import add_check

LATE_SECONDS = 5
"""The age, in seconds, above which the health check warns about the deny list.

A revocation must take effect within five seconds.
"""


def _check_decryption_keys() -> None:
    # Iterate over the keys, because only the iteration unseals the keys of a key table. The iteration fails if no key
    # can be unsealed.
    list(trust.decryption_keys(max_staleness=conf.max_staleness))


def _check_verification_keys() -> None:
    trust.verification_keys(max_staleness=conf.max_staleness)


def _check_deny_list() -> Finding:
    failure = ""
    try:
        trust.current_deny_list()
    except (DbError, InstAccessError) as error:
        failure = describe(error)
    age = trust.deny_list_age()
    values = {} if age is None else {"age_seconds": round(age, 1)}
    if failure:
        return Finding(Status.ERROR, failure, values)
    if age is None or age <= LATE_SECONDS:
        return Finding(values=values)
    return Finding(
        Status.WARNING,
        "the deny list can't be loaded again, so new revocations have no effect yet. Requests get a 503 when the "
        f"deny list is {conf.deny_list_seconds + conf.max_staleness} seconds old",
        values,
    )


add_check("decryption_keys", _check_decryption_keys, roles=["gateway"])
add_check("verification_keys", _check_verification_keys, roles=["gateway", "service"])
add_check("deny_list", _check_deny_list, roles=["gateway"])
