"""Access tokens for SASL OAUTHBEARER by the client credentials grant (RFC 6749, section 4.4)."""

from __future__ import annotations

import base64
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from streamline.connectors.kafka.client import KafkaError

REFRESH_AT = 0.8
"""Of a token's life: a new one is fetched then."""
DEFAULT_SECONDS = 300.0
"""Life of a token whose endpoint says none."""
REQUEST_SECONDS = 10.0


class TokenSource:
    """The newest token of a client. Any thread may ask.

    Args:
        sasl: `oauth_token_url, oauth_client_id, oauth_client_secret`, and `oauth_scope`.
    """

    def __init__(self, sasl: Mapping[str, Any]) -> None:
        self._sasl = sasl
        self._lock = threading.Lock()
        self._token = ""
        self._refresh_at = 0.0

    def token(self) -> str:
        """Return a token that is valid for a while.

        Raises:
            KafkaError: the endpoint gives none.
        """
        with self._lock:
            if time.monotonic() >= self._refresh_at:
                self._token, seconds = self._fetch()
                self._refresh_at = time.monotonic() + seconds * REFRESH_AT
            return self._token

    def _fetch(self) -> tuple[str, float]:
        url = str(self._sasl["oauth_token_url"])
        credentials = f"{self._sasl['oauth_client_id']}:{self._sasl['oauth_client_secret']}"
        form = {"grant_type": "client_credentials"}
        if scope := self._sasl.get("oauth_scope"):
            form["scope"] = str(scope)
        request = urllib.request.Request(
            url,
            data=urllib.parse.urlencode(form).encode(),
            headers={
                "Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}",
                "Accept": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as reply:
                answer = json.load(reply)
            return str(answer["access_token"]), float(answer.get("expires_in") or DEFAULT_SECONDS)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise KafkaError(
                f"no access token from {url}: {reason}",
                kafka_code="_AUTHENTICATION",
                transient=not (isinstance(error, urllib.error.HTTPError) and error.code < 500),
                code="kafka.authentication_failed",
                hint="check oauth_token_url, oauth_client_id and oauth_client_secret",
            ) from error
