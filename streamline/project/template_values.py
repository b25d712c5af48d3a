"""Values that templates insert into a YAML text, kept apart from it until it is parsed.

In a file that is rendered as one text (io_config.yaml, and what holds `{%`) a password with a quote, a backslash or a
line's end would break the YAML around it, or change what it says. So where a template inserts what `env_var`, `secret`
and their like have given, and that is not plain text, it leaves a mark, and the parsed data get the value itself.

What a template made of such a value (by a filter such as `tojson`, by a macro) is inserted as it is: it may be YAML on
purpose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streamline.project.yamlfile import PathKey, YamlFile

# Private-use characters: they stand in no configuration, and YAML takes them in any scalar.
_MARK = re.compile("\ue000value:(\\d+)\ue001")
_PLAIN = re.compile(r"[-+]?\w(?:[\w.+/@=:-]*\w)?|", re.ASCII)
_LIKE_A_NUMBER = re.compile(r"[-+.]*\d")


class InsertedValues:
    """What the expressions of one text have given."""

    def __init__(self) -> None:
        self._values: list[str] = []

    def watched(self, names: Mapping[str, Any]) -> dict[str, Any]:
        """The functions for templates, so that the values that they give are known when they are inserted."""
        return {name: _watched(one) if callable(one) else _known(one) for name, one in names.items()}

    def keep(self, value: Any) -> Any:
        """Jinja's `finalize`: a mark for a value that YAML could read as something else.

        Plain words and numbers stay, so that an unquoted port is a number.
        """
        if not isinstance(value, _Value) or _is_plain(value):
            return value
        self._values.append(str(value))
        return f"\ue000value:{len(self._values) - 1}\ue001"

    def put_back(self, file: YamlFile) -> None:
        """Replace the marks in a file's data by the values."""
        if self._values:
            file.data = self._filled(file.data, file, ())

    def _filled(self, data: Any, file: YamlFile, path: Sequence[PathKey]) -> Any:
        if isinstance(data, dict):
            return {self._text(key): self._filled(value, file, (*path, key)) for key, value in data.items()}
        if isinstance(data, list):
            return [self._filled(value, file, (*path, index)) for index, value in enumerate(data)]
        if not isinstance(data, str) or "\ue000" not in data:
            return data
        text = self._text(data)
        # A service account's key is JSON; where it stands without quotes, a mapping is meant.
        if text.lstrip()[:1] in ("{", "[") and _MARK.fullmatch(data) and file.is_plain(path):
            try:
                return json.loads(text)
            except ValueError:
                return text
        return text

    def _text(self, text: str) -> str:
        return _MARK.sub(lambda found: self._values[int(found[1])], text)


class _Value(str):
    """Text that a function has given, and no template has changed."""

    __slots__ = ()


def _watched(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return _known(function(*args, **kwargs))

    return call


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_known(one) for one in value]
    return _Value(value) if type(value) is str else value


def _is_plain(text: str) -> bool:
    """Whether YAML gives it back as it is, inside of quotes and without."""
    if not _PLAIN.fullmatch(text):
        return False
    if not _LIKE_A_NUMBER.match(text):
        return True
    for kind in (int, float):  # `1.10` and `0x1F` are numbers to YAML, and other texts afterwards
        try:
            if str(kind(text)) == text:
                return True
        except ValueError:
            continue
    return False
