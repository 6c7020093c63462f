"""`InstAccess`, which gets a token, caches the token until shortly before its expiry, and renews the token.

If several threads or tasks need a new token, one of them requests the token, and the others wait for the result.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from ..opaque import OpaqueText, concealed
from .errors import AccessTokenRefused, ForeignOrigin, InvalidArgument, IssuerUnavailable, RateLimited, TemporaryError
from .issuing import Endpoint, check_access_token, request_token
from .origins import Origin, parse_base_url
from .waiting import monotonic

LIFETIME = 3600
"""The lifetime of a token, in seconds. The token is encrypted, so a client can't read the time of expiry."""

LONGEST_DELAY = 3600.0
"""The maximum time, in seconds, for which this client sends no request after a response asked the client to wait.

The response may come from a server in front of the issuer, such as a proxy, and the time in the response may be
wrong.
"""

PAUSE = 30.0
"""The time, in seconds, for which a 401 causes no renewal after a service has refused a new token.

The next token would probably be refused too, for example because the user has no account at the service. Renewals
would only use up the rate limit.
"""


@dataclass(frozen=True, slots=True)
class _Cached:
    token: OpaqueText
    renew_at: float


class InstAccess:
    """A source of InstAccess tokens for one user. Share one object between all threads and tasks of a process.

    Args:
        base_url: the address of Canvas or of the issuer, for example `https://canvas.example.edu`.
        access_token: the OAuth2 access token, or None if `refresh` returns the first access token.
        refresh: a function that returns a new OAuth2 access token. The function is called if the issuer refuses the
            access token, or if there is no access token yet. Only one thread calls the function at a time.
        as_user_id: the id of the user for whom to get tokens, for a masquerade.
        origins: further addresses that may receive the token, for example the address of a gateway on another host.
        lifetime: the lifetime of the issuer's tokens, in seconds. If your issuer has a shorter LIFETIME, pass its
            value.
        margin: the time before the expiry, in seconds, at which the token is renewed. The default is 60 seconds or a
            quarter of the lifetime, whichever is shorter.
        max_wait: the longest time, in seconds, for which a renewal waits because the issuer asks the client to wait.
        timeout: the time limit of a request to the issuer, in seconds.
        ca_bundle: a file with the certificates to trust, or None for the default of the library `requests`.
        clock, sleep: replacements for the clock and for `time.sleep`, for tests.

    Raises:
        InvalidArgument: an argument is invalid. The message contains the fix.
    """

    _lock: threading.Lock
    _renewal: Future[OpaqueText] | None
    _renewing_thread: int | None

    @concealed
    def __init__(
        self,
        base_url: str,
        *,
        access_token: str | None = None,
        refresh: Callable[[], str] | None = None,
        as_user_id: str | int | None = None,
        origins: Iterable[str] = (),
        lifetime: float = LIFETIME,
        margin: float | None = None,
        max_wait: float = 60,
        timeout: float = 10,
        ca_bundle: str | None = None,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        secret = None if access_token is None else check_access_token(access_token)
        self.base_url = parse_base_url(base_url)
        if secret is None and refresh is None:
            raise InvalidArgument("Pass `access_token`, or a function that returns an access token as `refresh`.")
        margin = min(60.0, lifetime / 4) if margin is None else margin
        if not 0 <= margin < lifetime <= LIFETIME:
            raise InvalidArgument(
                f"`lifetime` must be at most {LIFETIME} and larger than `margin`, and `margin` must not be negative."
            )
        if timeout <= 0 or max_wait < 0:
            raise InvalidArgument("`timeout` must be larger than 0, and `max_wait` must not be negative.")
        self.origins = frozenset(
            Origin.of_url(url) for url in (self.base_url, *(parse_base_url(each, "origins") for each in origins))
        )
        self._endpoint = Endpoint(self.base_url, None if as_user_id is None else str(as_user_id), timeout, ca_bundle)
        self._access_token, self._refresh = secret, refresh
        self._usable_for, self._max_wait = lifetime - margin, max_wait
        self._clock, self._sleep = clock, sleep
        self._cached: _Cached | None = None
        self._not_before = self._no_renewal_before = clock()
        self._reset_after_fork()
        _instances.add(self)

    def __repr__(self) -> str:
        return f"<InstAccess for {self.base_url}>"

    def token(self) -> str:
        """Return a valid token, for clients without an auth class. The caller must not log the token.

        Raises:
            ClientError: no token could be obtained. The message contains the fix.
        """
        return self.get().reveal()

    async def async_token(self) -> str:
        """Return a valid token without blocking the event loop. See `token`."""
        return (await self.async_get()).reveal()

    def get(self) -> OpaqueText:
        """Return a valid token as an opaque object, which no log or error report can print."""
        with self._lock:
            if token := self._usable():
                return token
            renewal, is_first = self._join()
        if is_first:
            self._run(renewal)
        return renewal.result()

    async def async_get(self) -> OpaqueText:
        """Return a valid token as an opaque object, without blocking the event loop of asyncio."""
        with self._lock:
            if token := self._usable():
                return token
            renewal, is_first = self._join()
        if is_first:
            self._run_in_thread(renewal)
        # A running future can't be cancelled, so a cancelled task doesn't cancel the renewal for other tasks.
        return await asyncio.wrap_future(renewal)

    def check_origin(self, origin: Origin) -> None:
        """Check that an origin may receive the token.

        Raises:
            ForeignOrigin: the origin is neither the origin of `base_url` nor listed in `origins`.
        """
        if origin not in self.origins:
            raise ForeignOrigin(
                f"The token of {self.base_url} is not sent to {origin}. If this server may receive the token, pass "
                f"origins=[{str(origin)!r}]. Otherwise, send the request without this authentication."
            )

    def refuse(self, token: OpaqueText) -> bool:
        """Discard a token after a 401, except during the pause (`PAUSE`).

        Returns whether the caller may repeat the request with a new token. During the pause, returns False.

        If the token has already been replaced, the new token stays in the cache.
        """
        with self._lock:
            if self._cached is not None and self._cached.token == token:
                if self._clock() < self._no_renewal_before:
                    return False
                self._cached = None
            return True

    def refuse_new(self) -> None:
        """Start the pause (`PAUSE`) in which a 401 causes no renewal, after a service has refused a new token."""
        with self._lock:
            self._no_renewal_before = self._clock() + PAUSE

    def _usable(self) -> OpaqueText | None:
        cached = self._cached
        return cached.token if cached is not None and self._clock() < cached.renew_at else None

    def _join(self) -> tuple[Future[OpaqueText], bool]:
        """Return the current renewal, and whether the caller must run the renewal. The caller must hold the lock."""
        if self._renewal is not None:
            if self._renewing_thread == threading.get_ident():
                raise InvalidArgument(
                    "`refresh` must not request a token from its own `InstAccess` object. Send the requests of "
                    "`refresh` without the authentication of this object."
                )
            return self._renewal, False
        self._renewal = renewal = Future[OpaqueText]()
        renewal.set_running_or_notify_cancel()
        return renewal, True

    def _run_in_thread(self, renewal: Future[OpaqueText]) -> None:
        thread = threading.Thread(target=self._run, args=(renewal,), name="instaccess-renewal", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # Without this step, all later callers would wait forever for a renewal that no thread runs.
            self._finish(renewal, None, IssuerUnavailable("This process can't start a thread. Try again later."))

    def _run(self, renewal: Future[OpaqueText]) -> None:
        """Renew the token, and give the token or the error to all threads and tasks that wait."""
        cached, error = None, None
        self._renewing_thread = threading.get_ident()
        try:
            cached = self._renew()
        except Exception as failure:
            error = failure
        except BaseException:
            # The other threads must not get KeyboardInterrupt or SystemExit, which is meant for this thread.
            error = IssuerUnavailable("The renewal of the token was interrupted. Try again.")
            raise
        finally:
            self._finish(renewal, cached, error)

    def _finish(self, renewal: Future[OpaqueText], cached: _Cached | None, error: Exception | None) -> None:
        with self._lock:
            self._renewal = self._renewing_thread = None
            self._cached = cached or self._cached
        if cached is not None:
            renewal.set_result(cached.token)
        else:
            renewal.set_exception(error)

    def _renew(self) -> _Cached:
        if self._access_token is None:
            return self._issue(self._get_access_token())
        try:
            return self._issue(self._access_token)
        except AccessTokenRefused:
            if self._refresh is None:
                raise
        return self._issue(self._get_access_token())

    def _get_access_token(self) -> OpaqueText:
        assert self._refresh is not None  # noqa: S101
        self._access_token = check_access_token(self._refresh())
        return self._access_token

    def _issue(self, access_token: OpaqueText) -> _Cached:
        """Request a token. If the issuer asks the client to wait, wait and repeat the request.

        Raises an error immediately if the wait would exceed `max_wait`.
        """
        deadline = self._clock() + self._max_wait
        attempts = 0
        while True:
            self._wait(deadline)
            # The lifetime starts when the issuer issues the token. Use the time of the request, because the response
            # can take seconds.
            asked_at = self._clock()
            try:
                return _Cached(request_token(self._endpoint, access_token), asked_at + self._usable_for)
            except TemporaryError as error:
                if error.retry_after is None and not isinstance(error, RateLimited):
                    raise
                # Wait longer after each attempt, because the time in every response may be too short.
                delay = min(max(error.retry_after or 0.0, float(2 ** min(attempts, 6))), LONGEST_DELAY)
                self._not_before = self._clock() + delay
                if self._not_before > deadline:
                    error.retry_after = delay
                    raise
            attempts += 1

    def _wait(self, deadline: float) -> None:
        """Wait until this client may send the next request to the issuer.

        Raises:
            RateLimited: the wait would end after the deadline.
        """
        while (delay := self._not_before - self._clock()) > 0:
            if self._not_before > deadline:
                raise RateLimited(
                    f"{self.base_url} asked this client to wait for {delay:.0f} more seconds. Try again later, or "
                    "pass a larger `max_wait`.",
                    retry_after=delay,
                )
            self._sleep(delay)

    def _reset_after_fork(self) -> None:
        # The thread that holds the lock or runs the renewal doesn't exist in the new process, so nothing would
        # release the lock or end the renewal.
        self._lock = threading.Lock()
        self._renewal = self._renewing_thread = None


_instances: weakref.WeakSet[InstAccess] = weakref.WeakSet()


def _reset_all_after_fork() -> None:
    for instance in _instances:
        instance._reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all_after_fork)
