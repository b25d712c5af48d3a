"""Sends requests over one connection that is kept open, and tells what each answer means."""

from __future__ import annotations

import datetime as dt
import http.client
import ssl
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from streamline.connectors.http.settings import HttpSettings
from streamline.errors import StreamlineError

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
LONGEST_RETRY_AFTER = 3_600.0
_SHOWN_BYTES = 500
_ANSWER_BYTES = 1 << 16
_PASSES = (408, 425, 429)


class Refused(ValueError):
    """The other side does not take what was sent."""


class Ended(Exception):
    """The sink is to end at once."""


class NotUsable(StreamlineError):
    """The other side cannot be used, whatever is sent."""

    code = "http.not_usable"


class NotReachable(StreamlineError):
    """The other side does not answer."""

    code = "http.not_reachable"
    transient = True


class HttpClient:
    """Delivers request by request.

    Args:
        pause: waits so many seconds; False: there is no time.
        startup_timeout: seconds that it is tried to get a first answer; later it is tried without end.
        note: tells of an outage, with its level.
    """

    def __init__(
        self,
        settings: HttpSettings,
        *,
        pause: Callable[[float], bool],
        startup_timeout: float,
        note: Callable[[str, str], None],
    ) -> None:
        self._settings = settings
        self._pause = pause
        self._patience = startup_timeout
        self._note = note
        self._answered = False
        self._connection: http.client.HTTPConnection | None = None
        self._used = False

    def deliver(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Send until it is taken: an outage is waited for.

        Raises:
            Refused: it is not taken.
            NotUsable: nothing is: access is denied, or the address has changed.
            NotReachable: there was no first answer in time.
            Ended: there is no time to wait.
        """
        pause, waited, outage = FIRST_PAUSE, 0.0, False
        while True:
            try:
                status, answer, retry_after = self._request(path, body, headers)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                status, reason, retry_after = 0, _reason(error), None
                if not self._answered and waited >= self._patience:
                    raise NotReachable(
                        f"no answer for {waited:.0f} s: {reason}",
                        where=self._settings.url,
                        hint="check `url`, and that the server runs",
                    ) from None
            else:
                self._answered = True
                reason = f"status {status}" + (f": {answer}" if answer else "")
            if 200 <= status < 300:
                if outage:
                    self._note(f"{self._settings.url} takes messages again", "INFO")
                return
            if status and status not in _PASSES and status < 500:
                self._refuse(status, reason)
            if not outage:
                outage = True
                self._note(f"{self._settings.url} does not take messages now ({reason}); it is tried again", "WARNING")
            seconds = min(retry_after, LONGEST_RETRY_AFTER) if retry_after is not None else pause
            if not self._answered:
                seconds = min(seconds, max(0.05, self._patience - waited))
            if not self._pause(seconds):
                raise Ended
            waited += seconds
            pause = min(2 * pause, LONGEST_PAUSE)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def connect(self) -> None:
        """Connect.

        Raises:
            OSError: it does not answer.
        """
        if self._connection is None:
            parts = urlsplit(self._settings.url)
            assert parts.hostname is not None
            timeout = self._settings.timeout
            if parts.scheme == "https":
                cafile = str(self._settings.ca_file) if self._settings.ca_file is not None else None
                context = ssl.create_default_context(cafile=cafile)
                self._connection = http.client.HTTPSConnection(
                    parts.hostname, parts.port, timeout=timeout, context=context
                )
            else:
                self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
            self._connection.connect()
            self._used = False

    def _request(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str, float | None]:
        reused = self._connection is not None and self._used
        try:
            return self._once(path, body, headers)
        except (ConnectionError, http.client.BadStatusLine):
            # The server may close a connection that was idle at any time.
            self.close()
            if not reused:
                raise
            return self._once(path, body, headers)

    def _once(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str, float | None]:
        self.connect()
        connection = self._connection
        assert connection is not None
        self._used = True
        connection.request(self._settings.method, path, body, dict(headers))
        response = connection.getresponse()
        content = response.read(_ANSWER_BYTES)
        if not response.isclosed():
            self.close()  # the rest of a long answer
        text = content[:_SHOWN_BYTES].decode("utf-8", "replace").strip()
        return response.status, text, _seconds(response.headers.get("Retry-After"))

    def _refuse(self, status: int, reason: str) -> None:
        where = self._settings.url
        if status in (401, 407):
            raise NotUsable(f"access is denied ({reason})", where=where, hint="check `auth` and `headers`")
        if status < 400:
            raise NotUsable(f"the server answers with {reason}", where=where, hint="write the new address in `url`")
        raise Refused(f"{where} answers with {reason}")


def _seconds(value: str | None) -> float | None:
    """Return what Retry-After says (RFC 9110, 10.2.3): seconds, or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=dt.UTC)
    return max(0.0, (date - dt.datetime.now(dt.UTC)).total_seconds())


def _reason(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    return str(strerror or error) or type(error).__name__
