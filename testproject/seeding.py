"""An audit as a busy school would have it, made up: for benchmarks, screenshots and a look around.

The same seed and the same moment make the same rows, their HMACs included (under the same key-encryption key).
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

from instaccess.audit import row_hmac
from instaccess.audit.refusal_counts import RETENTION
from instaccess.conf import conf
from instaccess.models import IssuedToken, Key, RefusalCount, UserIdentity

LIFETIME = timedelta(hours=1)
USERS = 500
GONE = 2500
"""Users whom only their uuid in the audit recalls."""
MASQUERADERS = 5
ADDRESSES = 3000
STILL_THERE = 0.8
"""Of the issues, how many are for users who are not gone."""
MASQUERADES, REVOKED, REFUSED = 0.01, 0.002, 0.03
"""Per issue."""
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
"""Name and share of the issues, in percent."""
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
REASONS = ["laptop lost", "left the school", "integration shows odd traffic", "asked for by the user"]
REFUSALS = [
    # role, reason, share, whether the application is known
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
    """Somebody tokens are for: a user of this database, or one who is gone."""

    uuid: str
    user_id: Any = None


class Seeding:
    """What there is to make, from a number of rows, a period that ends now, and a seed.

    `users` and `applications` are made when this is; rows come one by one, so that a million needs no memory.
    """

    def __init__(self, *, rows: int, days: int, seed: int, now: datetime) -> None:
        self.count, self.start, self.now = rows, now - timedelta(days=days), now
        self._random = random.Random(seed)  # noqa: S311  (made up, and nothing secret)
        self._kek = conf.key_encryption_keys[:1]
        self.users = self._make_users()
        self.applications = self._make_applications()
        self._gone = [Person(str(self._uuid())) for _ in range(GONE)]
        self._addresses = [self._address() for _ in range(ADDRESSES)]
        self._kids = {
            use: Key.objects.filter(use=use, status=Key.Status.CURRENT).values_list("kid", flat=True).first()
            for use in Key.Use
        }

    def tokens(self) -> Iterator[IssuedToken]:
        """The audit rows, oldest first, as `issuer.issue` would have written them."""
        rnd = self._random
        domains, domain_shares = list(ACCOUNTS), _running(ACCOUNTS.values())
        accounts = {domain: str(uuid.uuid5(uuid.NAMESPACE_DNS, domain)) for domain in domains}
        shares = _running(APPLICATIONS.values())
        for moment in self._moments():
            person = self._person(moment)
            masked = rnd.random() < MASQUERADES
            real = self.users[rnd.randrange(MASQUERADERS)] if masked else Person("")
            application = rnd.choices(self.applications, cum_weights=shares)[0]
            domain = rnd.choices(domains, cum_weights=domain_shares)[0]
            token = IssuedToken(
                jti=self._uuid(),
                user_id=person.user_id,
                user_uuid=person.uuid,
                real_user_id=real.user_id,
                real_user_uuid=real.uuid,
                application_id=application.pk,
                client_id=application.client_id,
                access_token_pk=str(rnd.randrange(10**6)),
                account_uuid=accounts[domain],
                canvas_domain=domain,
                signing_kid=self._kid(Key.Use.SIGNING, moment),
                encryption_kid=self._kid(Key.Use.ENCRYPTION, moment),
                ip_address=rnd.choice(self._addresses),
                user_agent=rnd.choice(AGENTS),
                issued_at=moment,
                expires_at=moment + LIFETIME,
            )
            if rnd.random() < REVOKED:
                token.revoked_at = min(moment + LIFETIME * rnd.random(), self.now)
                token.revoked_by = f"user-{rnd.randrange(MASQUERADERS):03}"
                token.revocation_reason = rnd.choice(REASONS)
            token.mac = row_hmac.authenticate(row_hmac.canonical_bytes(token), self._kek)
            yield token

    def refusals(self) -> Iterator[RefusalCount]:
        """Refusals of the same hours, as far back as they are kept; about `REFUSED` to an issue."""
        rnd = self._random
        hours = (self.now - self.start) / timedelta(hours=1)
        hour = max(self.start, self.now - RETENTION).replace(minute=0, second=0, microsecond=0)
        total = sum(share for _, _, share, _ in REFUSALS)
        while hour <= self.now:
            for role, reason, share, known in REFUSALS:
                usual = self.count / hours * REFUSED * share / total * _liveliness(hour)
                count = int(usual * 2 * rnd.random() + rnd.random())
                client_id = rnd.choice(self.applications).client_id if known else ""
                if count:
                    yield RefusalCount(hour=hour, role=role, reason=reason, client_id=client_id, count=count)
            hour += timedelta(hours=1)

    def _moments(self) -> Iterator[datetime]:
        """When each was issued: the same number every day, most of them around noon; whole seconds, as issued."""
        first, last = (_work(moment.timestamp()) for moment in (self.start, self.now))
        for number in range(self.count):
            seconds = _moment(first + (last - first) * (number + self._random.random()) / self.count)
            yield datetime.fromtimestamp(int(seconds), UTC)

    def _person(self, moment: datetime) -> Person:
        """Some come every hour, others twice a year, and those who are gone came for a while."""
        if self._random.random() < STILL_THERE:
            return self.users[int(USERS * self._random.random() ** 2)]
        a_while = GONE // 10
        return self._gone[int((GONE - a_while) * self._elapsed(moment) + a_while * self._random.random())]

    def _elapsed(self, moment: datetime) -> float:
        """Of the period, up to a moment: from 0 to 1."""
        return min(max((moment - self.start) / (self.now - self.start), 0), 1)

    def _uuid(self) -> uuid.UUID:
        return uuid.UUID(int=self._random.getrandbits(128), version=4)

    def _address(self) -> str:
        if self._random.random() < 0.2:
            return f"2001:db8::{self._random.randrange(1, 2**16):x}"
        return f"10.{self._random.randrange(256)}.{self._random.randrange(256)}.{self._random.randrange(1, 255)}"

    def _kid(self, use: Key.Use, moment: datetime) -> str:
        """The current key's, and made-up ones for the rotations before it."""
        turn = (self.now - moment) // ROTATED
        return (self._kids[use] if not turn else None) or f"seeded-{use}-{turn}"

    def _make_users(self) -> list[Person]:
        model = get_user_model()
        names = [f"user-{number:03}" for number in range(USERS)]
        known = set(
            model._default_manager.filter(**{f"{model.USERNAME_FIELD}__in": names}).values_list(
                model.USERNAME_FIELD, flat=True
            )
        )
        # No password at all: nobody signs in as one of them.
        model._default_manager.bulk_create(
            [model(**{model.USERNAME_FIELD: name, "password": "!"}) for name in names if name not in known]
        )
        users = model._default_manager.filter(**{f"{model.USERNAME_FIELD}__in": names}).order_by(model.USERNAME_FIELD)
        UserIdentity.objects.bulk_create(
            [UserIdentity(user=user, uuid=self._uuid()) for user in users], ignore_conflicts=True
        )
        uuids = dict(UserIdentity.objects.filter(user__in=users).values_list("user_id", "uuid"))
        return [Person(str(uuids[user.pk]), user.pk) for user in users]

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


def _running(shares: Any) -> list[float]:
    total, sums = 0.0, []
    for share in shares:
        total += share
        sums.append(total)
    return sums


DAY = 86400
_SWING = 0.7


def _liveliness(moment: datetime) -> float:
    """How much goes on at an hour of the day (UTC), 1 on average."""
    return 1 - _SWING * math.cos(2 * math.pi * (moment.timestamp() % DAY) / DAY)


def _work(seconds: float) -> float:
    """How much has been done up to a moment: the integral of the liveliness, in seconds of an average hour."""
    return seconds - _SWING * DAY / (2 * math.pi) * math.sin(2 * math.pi * (seconds % DAY) / DAY)


def _moment(work: float) -> float:
    """When that much had been done: `_work` the other way round, to a few seconds."""
    day, rest = divmod(work, DAY)
    minute = bisect_right(_BY_MINUTE, rest) - 1
    before, after = _BY_MINUTE[minute : minute + 2]
    return day * DAY + 60 * (minute + (rest - before) / (after - before))


_BY_MINUTE = [_work(60 * minute) for minute in range(DAY // 60)] + [float(DAY)]
