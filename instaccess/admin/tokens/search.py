"""The search of the list of issued tokens. The search compares complete terms with indexed columns."""

from __future__ import annotations

import ipaddress
import re
import uuid
from contextlib import suppress

from django.db.models import Q

from ... import audit, users

RECORDED = 1000
"""The maximum number of audit rows that a search reads to find the uuids of deleted users with a given name."""

MAX_TERMS = 10
"""The maximum number of terms of a search. Each term takes several queries, and SQLite limits a condition's size."""

_TERM = re.compile(r'"([^"]*)"|(\S+)')


def find_terms(text: str) -> list[str]:
    """Split the text of a search into terms. A row must match every term.

    Quotation marks keep a term with spaces together. Without quotation marks, the whole text is one term if a row
    matches the whole text, because a user name can contain spaces. A text of more than `MAX_TERMS` terms is one term
    too.
    """
    text = text.replace("\x00", "").strip()
    terms = [quoted.strip() or word for quoted, word in _TERM.findall(text)]
    terms = [term for term in terms if term]
    if len(terms) > MAX_TERMS:
        return [text]
    if len(terms) < 2 or '"' in text:
        return terms
    is_one_term = audit.issued_tokens().filter(tokens_matching(text)).exists()
    return [text] if is_one_term else terms


def tokens_matching(term: str) -> Q:
    """Return the condition for tokens whose id, user, actor, client id or client address equals the term.

    A user name matches both the current name of a user and the name that the audit row recorded at the time of issue.
    """
    condition = audit.filter_by_application(term) | audit.filter_by_uuid(term) | audit.filter_by_recorded_name(term)
    # Load the primary keys of the users first, so that the query on the large table needs no join.
    if user_pks := list(users.named(term).values_list("pk", flat=True)):
        condition |= Q(user__in=user_pks) | Q(real_user__in=user_pks)
    with suppress(ValueError):
        value = uuid.UUID(term)
        condition |= Q(jti=value) | audit.filter_by_uuid(str(value))
    with suppress(ValueError):
        condition |= Q(ip_address__in=_spell_address(ipaddress.ip_address(term)))
    return condition


def _spell_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[str]:
    """Return both forms of an IPv4 address: the address itself, and the address mapped to IPv6 (RFC 4291 §2.5.5.2).

    A server that accepts IPv4 connections on an IPv6 socket reports the mapped form, such as `::ffff:192.0.2.7`.
    Returns other IPv6 addresses unchanged.
    """
    ipv4 = address if isinstance(address, ipaddress.IPv4Address) else address.ipv4_mapped
    return [str(address)] if ipv4 is None else [str(ipv4), f"::ffff:{ipv4}"]


def refusals_matching(term: str) -> Q | None:
    """Return the condition for refusals whose user or client id equals the term.

    Returns None if the term is an IP address, because refusals are not counted by address.
    """
    with suppress(ValueError):
        ipaddress.ip_address(term)
        return None
    uuids = {term, *map(users.existing_uuid, users.named(term)), *_recorded_uuids(term)}
    with suppress(ValueError):
        uuids.add(str(uuid.UUID(term)))
    # Refusal counts contain only ASCII, and some databases raise an error for a comparison with a non-ASCII string.
    client = Q(client_id=term) if term.isascii() else Q()
    return client | Q(user_uuid__in={each for each in uuids if each and each.isascii()})


def _recorded_uuids(name: str) -> set[str]:
    """Return the uuids that audit rows contain together with this user name, even if the users were deleted."""
    name = audit.fit(name, "user_name")
    rows = audit.issued_tokens().filter(audit.filter_by_recorded_name(name))
    columns = rows.values_list("user_name", "user_uuid", "real_user_name", "real_user_uuid")[:RECORDED]
    return {user_uuid for row in columns for recorded, user_uuid in (row[:2], row[2:]) if recorded == name}
