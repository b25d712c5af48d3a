"""Find secrets, and mask them in output."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from streamline.errors import ConfigError
from streamline.project.suggest import nearest, words

MASK = "********"
SECRETS_FILES = ("secrets.yaml", "secrets.json")

_SECRET_WORDS = words(
    "password passwords passwd pwd passphrase token tokens secret secrets key keys credential credentials apikey "
    "authorization"
)
# Also matched inside words (`clientsecret`, `authtoken`); `key` is too short for that.
_SECRET_PARTS = ("password", "passwd", "passphrase", "secret", "token", "credential", "apikey")
# `replication_key: updated_at` is not a secret, and masking `updated_at` would make logs unreadable.
_NO_SECRET_BESIDE_KEY = words(
    "replication bookmark primary foreign unique partition cluster clustering sort dist distribution natural surrogate "
    "merge join group order property properties column columns field fields name names"
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_URL_PASSWORD = re.compile(r"://[^/@:\s]*:([^?#\s]+@)")
_ASSIGNED = re.compile(r"([A-Za-z_][\w.-]*)\s*=\s*(?:'([^']*)'|\"([^\"]*)\"|([^\s;&#'\"]+))")
_ASSIGNED_PARTS = (*_SECRET_PARTS, "pwd", "accesskey", "accountkey")
_ESCAPE = re.compile(r"%[0-9A-F]{2}")
# Also after an escape of a URL (`password%3Dx`) or of JSON (`\nx`), which ends with a letter or digit.
_WORD_START = r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2})|(?<=\\[bfnrt])|(?<=\\u[0-9A-Fa-f]{4}))"
_SHORTEST = 3
_SHORT = 6
_LONGEST_WORD = 12


class Masker:
    """Replaces known secrets in text.

    Attributes:
        on_add: called with each new secret, so that another process can mask it too.
    """

    def __init__(self) -> None:
        self.on_add: Callable[[str], None] | None = None
        self._values: set[str] = set()
        self._text: re.Pattern[str] | None = None

    def add(self, value: object) -> None:
        """Mask this value from now on, also in base64, as it is escaped in JSON and URLs, and its single lines.

        Values under three characters are not masked: the text would be unreadable.
        """
        if isinstance(value, bool) or not isinstance(value, str | int | float | bytes):
            return
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        forms = {text, text.strip()}
        if not text.isalnum():
            import json
            from urllib.parse import quote, quote_plus

            forms |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]}
            escaped = {quote(text), quote(text, safe=""), quote_plus(text)}
            forms |= escaped | {_ESCAPE.sub(lambda match: match[0].lower(), form) for form in escaped}
            forms |= {form.replace("/", "\\/") for form in forms}
        if len(text) >= _SHORT:
            forms |= _base64_forms(text.encode("utf-8", "surrogatepass"))
        lines = text.splitlines()
        if len(lines) > 1:
            # Mask the body of a key, but not lines such as `-----BEGIN …`.
            forms |= {line.strip() for line in lines if not line.startswith("-----")}
        new = {form for form in forms if len(form) >= _SHORTEST} - self._values
        if new:
            self._values = self._values | new
            self._text = None
            if self.on_add is not None:
                self.on_add(text)

    def add_config(self, config: object) -> None:
        """Mask the values of secret-like keys in `config`, and passwords in URLs, at any depth."""
        if isinstance(config, Mapping):
            for key, value in config.items():
                if is_secret_name(str(key)):
                    self._add_leaves(value)
                else:
                    self.add_config(value)
        elif isinstance(config, list | tuple):
            for value in config:
                self.add_config(value)
        elif isinstance(config, str):
            self._add_url_passwords(config)

    def mask(self, text: str) -> str:
        """Return `text` with every known secret replaced."""
        if not self._values:
            return text
        if self._text is None:
            self._text = re.compile("|".join(self._alternatives()))
        return self._text.sub(MASK, text)

    def _alternatives(self) -> list[str]:
        # Longest first, because a secret may contain another.
        return [_pattern(value) for value in sorted(self._values, key=len, reverse=True)]

    def _add_leaves(self, value: object) -> None:
        if isinstance(value, Mapping):
            for item in value.values():
                self._add_leaves(item)
        elif isinstance(value, list | tuple):
            for item in value:
                self._add_leaves(item)
        elif value is not None and not isinstance(value, bool):
            self.add(value)
            if isinstance(value, str):
                self._add_url_passwords(value)
                self._add_json_leaves(value)

    def _add_url_passwords(self, text: str) -> None:
        """Mask passwords in URLs and in `password=…` of query strings and connection strings."""
        from urllib.parse import unquote

        found: list[str] = []
        for match in _URL_PASSWORD.finditer(text) if "://" in text else ():
            # A password may contain an @ itself, so each of them may be its end.
            found += [match[1][:at] for at, letter in enumerate(match[1]) if letter == "@"]
        for match in _ASSIGNED.finditer(text) if "=" in text else ():
            name = re.sub(r"[\W_]", "", match[1].casefold())
            if any(part in name for part in _ASSIGNED_PARTS):
                found.append(match[2] or match[3] or match[4] or "")
        for value in found:
            self.add(value)
            self.add(unquote(value))

    def _add_json_leaves(self, text: str) -> None:
        """Mask the values inside a JSON text: credentials are often JSON, and taps print parts of it."""
        if not text.lstrip().startswith("{"):
            return
        import json

        try:
            self.add_config(json.loads(text))
        except ValueError:
            return


def _base64_forms(data: bytes) -> set[str]:
    """Return what base64 makes of a secret, alone and inside a longer text such as `user:password`."""
    from base64 import b64encode, urlsafe_b64encode

    forms = set()
    for encode in (b64encode, urlsafe_b64encode):
        forms.add(encode(data).decode().rstrip("="))
        for before in range(3):
            text = encode(bytes(before) + data).decode()
            # A character is six bits: those that it shares with the bytes around the secret are left.
            forms.add(text[-(-before * 8 // 6) : (before + len(data)) * 8 // 6])
    return forms


def _pattern(value: str) -> str:
    """Return the expression for a secret: short ones and ordinary words are matched as whole words only."""
    pattern = re.escape(value)
    ordinary = len(value) <= _LONGEST_WORD and value.isalpha() and (value.islower() or value.istitle())
    if ordinary:
        # The password `postgres` is no part of `postgresql`, `tap-postgres` and `postgres://`.
        pattern = rf"(?<!\btap[-_])(?<!\btarget[-_])(?<!\bmapper[-_]){pattern}(?!://)"
    return rf"{_WORD_START}{pattern}(?![A-Za-z0-9])" if ordinary or len(value) < _SHORT else pattern


def is_secret_name(name: str) -> bool:
    """Return whether a key is named like a password, token, secret, key or credential."""
    parts = [word.casefold() for word in _WORD.findall(name)]
    hits = [word for word in parts if word in _SECRET_WORDS]
    if not hits:
        folded = "".join(parts)
        return any(part in folded for part in _SECRET_PARTS)
    if all(word in ("key", "keys") for word in hits):
        return not any(word in _NO_SECRET_BESIDE_KEY for word in parts)
    return True


class EnvironmentSecrets:
    """Secrets in environment variables: `secret('shop')` is `STREAMLINE_SECRET_SHOP`."""

    prefix = "STREAMLINE_SECRET_"

    def get(self, name: str) -> str | None:
        return os.environ.get(self.variable(name))

    def names(self) -> Iterable[str]:
        return [key.removeprefix(self.prefix).lower() for key in os.environ if key.startswith(self.prefix)]

    @classmethod
    def variable(cls, name: str) -> str:
        """Return the environment variable of a secret."""
        return cls.prefix + re.sub(r"\W", "_", name).upper()


class FileSecrets:
    """The project's secrets file, `.streamline/secrets.yaml` or `.json`: a mapping of names to text, mode 0600."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._values: dict[str, str] | None = None

    def get(self, name: str) -> str | None:
        return self._load().get(name)

    def names(self) -> Iterable[str]:
        return list(self._load())

    def values(self) -> Iterable[str]:
        return self._load().values()

    def _load(self) -> dict[str, str]:
        if self._values is None:
            paths = [self.folder / name for name in SECRETS_FILES]
            path = next((path for path in paths if path.exists()), None)
            self._values = self._read(path) if path is not None else {}
        return self._values

    @staticmethod
    def _read(path: Path) -> dict[str, str]:
        from streamline.project.yamlfile import load_yaml

        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise ConfigError(
                f"the secrets file is readable by other users (mode {mode:04o})",
                where=str(path),
                hint=f"chmod 600 {path}",
                code="secret.file_not_private",
            )
        # Secrets are not rendered: `{{` in a secret is text.
        try:
            file = load_yaml(path, rendered=True)
        except ConfigError as error:
            if error.code != "yaml.invalid":
                raise
            # The parser's message may quote a secret.
            raise ConfigError(
                "the secrets file is not valid YAML",
                where=error.where,
                hint="put each secret in quotes, or write it as a block scalar (|)",
                code="yaml.invalid",
            ) from None
        values = {}
        for key, value in file.mapping().items():
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                file.fail(
                    f"the secret '{key}' must be text",
                    (key,),
                    hint="put it in quotes, or as a block scalar (|)",
                    code="secret.not_text",
                )
            values[key] = value if isinstance(value, str) else _scalar_text(file.text, key, value)
        return values


class Secrets:
    """The project's secrets, of the environment or else the secrets file. All of them are masked.

    Args:
        work_dir: the project's `.streamline` folder, which contains the secrets file.
        masker: masks them.
    """

    def __init__(self, work_dir: Path, masker: Masker | None = None) -> None:
        self.masker = masker if masker is not None else Masker()
        self.file = work_dir / SECRETS_FILES[0]
        file = FileSecrets(work_dir)
        self._sources = (EnvironmentSecrets(), file)

        for variable, value in os.environ.items():
            if variable.startswith(EnvironmentSecrets.prefix):
                self.masker.add(value)
        # Also those that no template asks for: a connector may find the file. What is wrong with it is told on use.
        with contextlib.suppress(ConfigError, OSError):
            for value in file.values():
                self.masker.add(value)

    def find(self, name: str) -> str | None:
        """Return a secret; None if no source has it."""
        for source in self._sources:
            value = source.get(name)
            if value is not None:
                self.masker.add(value)  # it may have been set since
                return value
        return None

    def get(self, name: str) -> str:
        """Return a secret.

        Raises:
            ConfigError: no source has it.
        """
        value = self.find(name)
        if value is None:
            near = nearest(name, [known for source in self._sources for known in source.names()])
            prefix = f"did you mean '{near[0]}'? Otherwise set" if near else "set"
            raise ConfigError(
                f"secret '{name}' not found",
                hint=f"{prefix} {EnvironmentSecrets.variable(name)} in the environment or in .env, or `{name}:` in "
                f"{self.file} (mode 0600)",
                code="secret.not_found",
            )
        return value


def _scalar_text(text: str, key: str, value: Any) -> str:
    """Return a number as written in the file (`1_000`, `1.50`): it may be a password."""
    match = re.search(rf"(?m)^\s*[\"']?{re.escape(key)}[\"']?\s*:\s*([^\s#,}}]+)", text)
    return match[1] if match else str(value)
