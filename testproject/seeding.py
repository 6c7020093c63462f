"""A generator of audit rows that resemble the audit log of a busy school, for benchmarks, screenshots and demos.

The same seed and the same current time produce the same rows. With the same key-encryption key, the HMACs are also
the same.
"""

from __future__ import annotations

import math
import random
import uuid
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from oauth2_provider.models import get_application_model

from instaccess.audit import names, row_hmac
from instaccess.audit.refusal_counts import RETENTION
from instaccess.audit.row_ids import row_id
from instaccess.conf import conf
from instaccess.models import IssuedToken, Key, RefusalCount, UserIdentity
from instaccess.users import user_name

LIFETIME = timedelta(hours=1)
USERS = 500
DELETED_USERS = 2500
"""The number of deleted users, whose uuids and names only the audit log contains."""
MASQUERADERS = 5
ADDRESSES = 3000
EXISTING_SHARE = 0.8
"""The share of tokens whose subject is an existing user, from 0 to 1."""
MASQUERADES, REVOKED, REFUSED = 0.01, 0.002, 0.03
"""The average number of masquerades, of revoked tokens and of refusals, per issued token."""
ROTATED = timedelta(days=90)

APPLICATIONS = {
    "Gradebook sync": 30,
    "LTI tool": 20,
    "Mobile app": 18,
    "Library portal": 10,
    "Attendance": 8,
    "Quiz engine": 6,
    "Video archive": 4,
    "Data export": 2,
    "Timetable": 1.5,
    "Alumni pages": 0.5,
}
"""The percentage of issued tokens for each application, by name of the application."""
ACCOUNTS = {"canvas.example.edu": 70, "college.example.edu": 29.95, "summer.example.edu": 0.05}
AGENTS = [
    "python-requests/2.32.5",
    "okhttp/4.12.0",
    "node-fetch/1.0 (+https://github.com/bitinn/node-fetch)",
    "Apache-HttpClient/5.3.1 (Java/21.0.4)",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "GuzzleHttp/7",
    "",
]
REASONS = ["laptop lost", "left the school", "integration shows odd traffic", "requested by the user"]
REFUSALS = [
    # Each tuple contains the role, the reason code, the percentage of refusals, and whether the application is known.
    (RefusalCount.Role.ISSUER, "expired", 35, True),
    (RefusalCount.Role.ISSUER, "unknown_token", 15, False),
    (RefusalCount.Role.ISSUER, "insufficient_scope", 5, True),
    (RefusalCount.Role.ISSUER, "as_user_id_not_allowed", 2, True),
    (RefusalCount.Role.GATEWAY, "expired", 38, False),
    (RefusalCount.Role.GATEWAY, "bad_signature", 2, False),
    (RefusalCount.Role.GATEWAY, "revoked", 3, False),
]


@dataclass(frozen=True)
class Person:
    """The subject or the real user of a generated token. `user_id` is None for a deleted user."""

    uuid: str
    name: str = ""
    user_id: Any = None


class Seeding:
    """Generated users, applications, audit rows and refusals for a period that ends now.

    The constructor stores the users and the applications in the database. The audit rows are generated one by one, in
    constant memory.

    Args:
        rows: the number of audit rows.
        days: the length of the period, in days.
        seed: the seed of the random number generator.
        now: the current time, which is the end of the period.
    """

    def __init__(self, *, rows: int, days: int, seed: int, now: datetime) -> None:
        self.count, self.start, self.now = rows, now - timedelta(days=days), now
        self._random = random.Random(seed)  # noqa: S311  (test data, not a secret)
        self._kek = conf.key_encryption_keys[:1]
        self.users = self._make_users()
        self.applications = self._make_applications()
        self._deleted_users = [Person(str(self._uuid()), f"former-{number:04}") for number in range(DELETED_USERS)]
        self._addresses = [self._address() for _ in range(ADDRESSES)]
        self._kids = {
            use: Key.objects.filter(use=use, status=Key.Status.CURRENT).values_list("kid", flat=True).first()
            for use in Key.Use
        }

    def tokens(self) -> Iterator[IssuedToken]:
        """Yield unsaved audit rows in the format of `issuer.issue`, oldest first."""
        rnd = self._random
        domains, domain_shares = list(ACCOUNTS), _cumulative_sums(ACCOUNTS.values())
        accounts = {domain: str(uuid.uuid5(uuid.NAMESPACE_DNS, domain)) for domain in domains}
        shares = _cumulative_sums(APPLICATIONS.values())
        for time in self._issue_times():
            person = self._person(time)
            masquerades = rnd.random() < MASQUERADES
            real = self.users[rnd.randrange(MASQUERADERS)] if masquerades else Person("")
            application = rnd.choices(self.applications, cum_weights=shares)[0]
            domain = rnd.choices(domains, cum_weights=domain_shares)[0]
            jti = self._uuid()
            token = IssuedToken(
                id=row_id(time, jti),
                jti=jti,
                user_id=person.user_id,
                user_uuid=person.uuid,
                user_name=person.name,
                real_user_id=real.user_id,
                real_user_uuid=real.uuid,
                real_user_name=real.name,
                application_id=application.pk,
                client_id=application.client_id,
                access_token_pk=str(rnd.randrange(10**6)),
                account_uuid=accounts[domain],
                canvas_domain=domain,
                signing_kid=self._kid(Key.Use.SIGNING, time),
                encryption_kid=self._kid(Key.Use.ENCRYPTION, time),
                ip_address=rnd.choice(self._addresses),
                user_agent=rnd.choice(AGENTS),
                issued_at=time,
                expires_at=time + LIFETIME,
            )
            if rnd.random() < REVOKED:
                token.revoked_at = min(time + LIFETIME * rnd.random(), self.now)
                token.revoked_by = f"user-{rnd.randrange(MASQUERADERS):03}"
                token.revocation_reason = rnd.choice(REASONS)
            token.mac = row_hmac.authenticate(row_hmac.canonical_bytes(token), self._kek)
            token.names_mac = row_hmac.authenticate(names.canonical_bytes(token), self._kek)
            yield token

    def refusals(self) -> Iterator[RefusalCount]:
        """Yield unsaved refusal counts for the last `RETENTION`, with about `REFUSED` refusals per issued token."""
        rnd = self._random
        hours = (self.now - self.start) / timedelta(hours=1)
        hour = max(self.start, self.now - RETENTION).replace(minute=0, second=0, microsecond=0)
        total = sum(share for _, _, share, _ in REFUSALS)
        while hour <= self.now:
            for role, reason, share, known in REFUSALS:
                usual = self.count / hours * REFUSED * share / total * _activity(hour)
                count = int(usual * 2 * rnd.random() + rnd.random())
                client_id = rnd.choice(self.applications).client_id if known else ""
                if count:
                    yield RefusalCount(hour=hour, role=role, reason=reason, client_id=client_id, count=count)
            hour += timedelta(hours=1)

    def _issue_times(self) -> Iterator[datetime]:
        """Yield issue times in whole seconds: the same number of tokens every day, most of them near noon."""
        first, last = (_cumulative_activity(time.timestamp()) for time in (self.start, self.now))
        for number in range(self.count):
            seconds = _time_of(first + (last - first) * (number + self._random.random()) / self.count)
            yield datetime.fromtimestamp(int(seconds), UTC)

    def _person(self, time: datetime) -> Person:
        """Choose the subject of a token that is issued at `time`.

        Some users get tokens every hour, and some users get tokens twice per year. Deleted users get tokens only for
        part of the period.
        """
        if self._random.random() < EXISTING_SHARE:
            return self.users[int(USERS * self._random.random() ** 2)]
        active_count = DELETED_USERS // 10
        return self._deleted_users[
            int((DELETED_USERS - active_count) * self._elapsed(time) + active_count * self._random.random())
        ]

    def _elapsed(self, time: datetime) -> float:
        """Return the share of the period that has elapsed at `time`, from 0 to 1."""
        return min(max((time - self.start) / (self.now - self.start), 0), 1)

    def _uuid(self) -> uuid.UUID:
        return uuid.UUID(int=self._random.getrandbits(128), version=4)

    def _address(self) -> str:
        if self._random.random() < 0.2:
            return f"2001:db8::{self._random.randrange(1, 2**16):x}"
        return f"10.{self._random.randrange(256)}.{self._random.randrange(256)}.{self._random.randrange(1, 255)}"

    def _kid(self, use: Key.Use, time: datetime) -> str:
        """Return the kid of the key that is current at `time`.

        Returns an invented kid if `time` is before the last rotation.
        """
        rotations = (self.now - time) // ROTATED
        return (self._kids[use] if not rotations else None) or f"seeded-{use}-{rotations}"

    def _make_users(self) -> list[Person]:
        model = get_user_model()
        names = [f"user-{number:03}" for number in range(USERS)]
        existing = set(
            model._default_manager.filter(**{f"{model.USERNAME_FIELD}__in": names}).values_list(
                model.USERNAME_FIELD, flat=True
            )
        )
        # Set an unusable password ("!"), so that no client can log in as a generated user.
        model._default_manager.bulk_create(
            [model(**{model.USERNAME_FIELD: name, "password": "!"}) for name in names if name not in existing]
        )
        users = model._default_manager.filter(**{f"{model.USERNAME_FIELD}__in": names}).order_by(model.USERNAME_FIELD)
        UserIdentity.objects.bulk_create(
            [UserIdentity(user=user, uuid=self._uuid()) for user in users], ignore_conflicts=True
        )
        uuids = dict(UserIdentity.objects.filter(user__in=users).values_list("user_id", "uuid"))
        return [Person(str(uuids[user.pk]), user_name(user), user.pk) for user in users]

    def _make_applications(self) -> list[Any]:
        model = get_application_model()
        return [
            model._default_manager.filter(name=name).order_by("pk").first()
            or model._default_manager.create(
                name=name,
                client_id=f"seeded-{number}",
                client_type="confidential",
                authorization_grant_type="authorization-code",
                redirect_uris="https://client.example/callback",
            )
            for number, name in enumerate(APPLICATIONS)
        ]


def _cumulative_sums(shares: Any) -> list[float]:
    total, sums = 0.0, []
    for share in shares:
        total += share
        sums.append(total)
    return sums


DAY = 86400
_SWING = 0.7


def _activity(time: datetime) -> float:
    """Return the relative number of issued tokens at a time of day (UTC). The average over a day is 1."""
    return 1 - _SWING * math.cos(2 * math.pi * (time.timestamp() % DAY) / DAY)


def _cumulative_activity(seconds: float) -> float:
    """Return the integral of `_activity` from the epoch to a time, in seconds of average activity."""
    return seconds - _SWING * DAY / (2 * math.pi) * math.sin(2 * math.pi * (seconds % DAY) / DAY)


def _time_of(activity: float) -> float:
    """Return the time at which `_cumulative_activity` equals `activity`, in seconds since the epoch.

    The result is accurate to a few seconds.
    """
    day, rest = divmod(activity, DAY)
    minute = bisect_right(_BY_MINUTE, rest) - 1
    before, after = _BY_MINUTE[minute : minute + 2]
    return day * DAY + 60 * (minute + (rest - before) / (after - before))


_BY_MINUTE = [_cumulative_activity(60 * minute) for minute in range(DAY // 60)] + [float(DAY)]
