"""Credentials of git URLs, given to git in a private file: in a URL they would stand in git's arguments."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from streamline.project.files import replace_file

_GIT_URL = re.compile(r"git\+(?P<scheme>https?)://(?P<login>[^/\s]+)@(?P<host>[^/@\s]+)(?P<path>/[^\s@#?]*)")


class GitCredentials:
    """Takes the credentials out of requirements, and gives them to git by a credential helper.

    Args:
        file: a path for the helper's file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._logins: dict[tuple[str, str], str] = {}
        """Login by host and path."""

    def take(self, requirement: str) -> str:
        """Return a requirement without the user and password of its git URL."""
        match = _GIT_URL.search(requirement)
        if match is None:
            return requirement
        host = f"{match['scheme']}://{match['host']}"
        self._logins[host, match["path"]] = match["login"] if ":" in match["login"] else f"{match['login']}:"
        return requirement[: match.start("login")] + requirement[match.end("login") + 1 :]

    @contextmanager
    def environment(self, environ: Mapping[str, str]) -> Iterator[dict[str, str]]:
        """Return an environment in which git finds the credentials, until the block ends."""
        if not self._logins:
            yield dict(environ)
            return
        lines = [f"{host.replace('://', f'://{login}@')}{path}" for (host, path), login in self._logins.items()]
        replace_file(self._file, "".join(f"{line}\n" for line in lines), mode=0o600)
        settings: list[tuple[str, str]] = []
        for host in dict.fromkeys(host for host, _ in self._logins):
            several = len({login for (of, _), login in self._logins.items() if of == host}) > 1
            settings += [
                (f"credential.{host}.helper", ""),  # no other helper is asked, or told to keep it
                (f"credential.{host}.helper", f"store --file={shlex.quote(str(self._file))}"),
                (f"credential.{host}.useHttpPath", str(several).lower()),
            ]
        first = int(environ.get("GIT_CONFIG_COUNT") or 0)
        result = {**environ, "GIT_CONFIG_COUNT": str(first + len(settings)), "GIT_TERMINAL_PROMPT": "0"}
        for number, (key, value) in enumerate(settings, first):
            result |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        try:
            yield result
        finally:
            self._file.unlink(missing_ok=True)
