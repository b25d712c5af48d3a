"""The SCHEMA of a stream that nobody described, inferred from its records and widened as they come.

A column gets the JSON type of its first value that is not null. Later values may widen it, and a misfit is refused:
whole numbers become numbers when a fraction comes; every other change of type is none that a table can follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any

import msgspec

from streamline.flow.codecs.schemas import types
from streamline.flow.items import JSONObject

_WORDS = {
    "null": "null",
    "boolean": "a boolean",
    "integer": "a whole number",
    "number": "a fraction",
    "string": "a string",
    "object": "an object",
    "array": "an array",
}
_PYTHON: Mapping[str, Any] = {
    "null": None,
    "boolean": bool,
    "integer": int,
    "number": float,
    "string": str,
    "object": dict[str, Any],
    "array": list[Any],
}
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_KINDS = {ord('"'): "string", ord("{"): "object", ord("["): "array", ord("t"): "boolean", ord("f"): "boolean"}


class MisfitError(ValueError):
    """A record does not fit its stream's columns; the text says why."""


class InferredSchema:
    """The columns of one stream.

    Args:
        keys: the columns that identify a row; each record needs a value for each.
        known: properties that the stream has already had at the destination.
        declared: properties that are used for a column when it first comes, instead of those of its value.
    """

    def __init__(
        self,
        keys: Sequence[str] = (),
        known: Mapping[str, JSONObject] | None = None,
        declared: Mapping[str, JSONObject] | None = None,
    ) -> None:
        self.keys = list(keys)
        self.changed = True
        """Whether it has changed since it was last sent; who sends it says so."""
        self.properties: dict[str, JSONObject] = {}
        self._decoder: msgspec.json.Decoder[Any] | None = None
        self._types: dict[str, frozenset[str]] = {}
        self._declared = dict(declared or {})
        for name, prop in (known or {}).items():
            self._set(name, prop)
            # One that values have widened stays wide.
            if name in self._declared and self._types[name] <= _admitted(self._declared[name]):
                self._set(name, self._declared[name])

    @property
    def schema(self) -> JSONObject:
        """The JSON Schema."""
        return {"type": "object", "properties": dict(self.properties)}

    def fits(self, text: bytes) -> bool:
        """Return whether a record is known to fit as it is, at the speed of native code.

        False says nothing: `fit` tells.
        """
        if self._decoder is None:
            self._decoder = self._make_decoder()
        try:
            self._decoder.decode(text)
        except _UNREADABLE:
            return False
        return True

    def _make_decoder(self) -> msgspec.json.Decoder[Any]:
        fields: list[tuple[str, Any, Any] | tuple[str, Any]] = []
        names: dict[str, str] = {}
        for number, (column, admitted) in enumerate(self._types.items()):
            field = names[column] = f"column{number}"
            kinds = [_PYTHON[kind] for kind in admitted if column not in self.keys or kind != "null"]
            kind = reduce(or_, kinds) if kinds else None
            fields.append((field, kind) if column in self.keys else (field, kind | msgspec.UnsetType, msgspec.UNSET))
        if set(self.keys) - self._types.keys():
            return msgspec.json.Decoder(None)  # nothing fits before every key has a type
        columns = msgspec.defstruct(
            "Columns",
            sorted(fields, key=len),
            rename={field: column for column, field in names.items()},
            forbid_unknown_fields=True,
        )
        return msgspec.json.Decoder(columns)

    def fit(self, members: Mapping[str, msgspec.Raw], formats: Mapping[str, str] | None = None) -> list[str]:
        """Widen the columns for a record.

        Args:
            members: the texts of its values.
            formats: of strings that are dates or times.

        Returns:
            The record's columns of which no type is known, because they never had a value: they are null.

        Raises:
            MisfitError: it does not fit; nothing has changed.
        """
        changes: dict[str, JSONObject] = {}
        unknown: list[str] = []
        for key in self.keys:
            if bytes(members.get(key, b"null")) == b"null":
                raise MisfitError(f"no value for the key column {key!r}")
        for name, raw in members.items():
            kind = _kind(name, bytes(raw))
            admitted = self._types.get(name)
            if admitted is not None:
                if kind not in admitted:
                    changes[name] = self._widened(name, kind, self.properties[name], admitted)
            elif name in self._declared:
                prop = self._declared[name]
                admitted = _admitted(prop)
                changes[name] = prop if kind in admitted else self._widened(name, kind, prop, admitted)
            elif kind == "null":
                unknown.append(name)
            else:
                prop = {"type": [kind] if name in self.keys else ["null", kind]}
                changes[name] = {**prop, "format": formats[name]} if formats and name in formats else prop
        for name, prop in changes.items():
            self._set(name, prop)
        self.changed = self.changed or bool(changes)
        return unknown

    def _widened(self, name: str, kind: str, prop: JSONObject, admitted: frozenset[str]) -> JSONObject:
        if kind == "null":
            return {**prop, "type": ["null", *_listed(prop)]}
        if kind == "number" and "integer" in admitted and admitted <= {"null", "integer"}:
            others = [each for each in _listed(prop) if each != "integer"]
            return {"type": [*others, "number"]}
        words = " or ".join(_WORDS[each] for each in _listed(prop) if each != "null")
        raise MisfitError(f"column {name!r}: {_WORDS[kind]}, where the column holds {words or 'nothing'}")

    def _set(self, name: str, prop: JSONObject) -> None:
        self._decoder = None
        self.properties[name] = dict(prop)
        self._types[name] = _admitted(prop)


def _admitted(prop: Mapping[str, Any]) -> frozenset[str]:
    allowed = types(prop)
    return allowed | {"integer"} if "number" in allowed else allowed


def _listed(prop: Mapping[str, Any]) -> list[str]:
    return sorted(types(prop), key=lambda name: (name != "null", name))


def _kind(name: str, text: bytes) -> str:
    first = text[0]
    kind = _KINDS.get(first)
    if kind is not None:
        return kind
    if text == b"null":
        return "null"
    if first == ord("-") or ord("0") <= first <= ord("9"):
        if text == b"-Infinity":
            raise MisfitError(f"column {name!r}: -Infinity is not a JSON number")
        return "number" if b"." in text or b"e" in text or b"E" in text else "integer"
    raise MisfitError(f"column {name!r}: {text[:20].decode('utf-8', 'replace')} is not a JSON value")
