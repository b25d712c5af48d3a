"""Proofs that every reader sees the same message in a line: no member stands in it twice, and nothing follows it.

JSON leaves open what a name means that stands in an object twice, and readers take the first value, the last one, or
compare names without case. A line with a second `type` or `stream` would be one message here and another in a target.

Most lines are never decoded. Those of one stream begin with the same bytes, up to the record's first brace. If the
chunk has no other closing braces than the last two of each line, a record ends where its line does, and there is no
room for another member. Otherwise the lengths of the records say where each one ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import repeat

import msgspec

from streamline.flow.items import Buffer

_CLOSING = b"}}\n"
_LONG_VALUE = 32
_RECORD_KEY = b'"record":'
_HEAD = 512
"""The record's key is looked for in so many bytes of a line."""
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]:]', re.DOTALL)
_VERSION = rb'(?:,\s*"version"\s*:\s*(?:\d+|null)\s*)?'
_EXTRACTED = rb'(?:,\s*"time_extracted"\s*:\s*(?:"[^"\\]*"|null)\s*)'
_TAIL = re.compile(rb"\s*(?:%b%b?|%b%b)\}\s*" % (_VERSION, _EXTRACTED, _EXTRACTED, _VERSION))
"""What may follow a record. It ends in one brace, so that it cannot begin inside of a record that comes later."""


class _RecordMember(msgspec.Struct, gc=False):
    record: msgspec.Raw


_decoder = msgspec.json.Decoder(_RecordMember)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def count_byte(chunk: bytes, byte: bytes, start: int, end: int) -> int:
    """Count a byte between two offsets of a chunk.

    Before Python 3.12, `bytes.count` of a single byte looks at every byte; removing the byte uses memchr and is about
    four times as fast.
    """
    if end - start < len(chunk) // 2:
        return chunk.count(byte, start, end)
    whole = len(chunk) - len(chunk.replace(byte, b""))
    return whole - chunk.count(byte, 0, start) - chunk.count(byte, end)


class FlatRecords:
    """Proof that the lines of a chunk are RECORDs without nested objects, braces in text, and members after the record.

    Args:
        chunk: output of a tap.
        start: the beginning of a line in it.
        end: the end of a line in it.
        opening: the beginning of a RECORD line of the stream, up to the record's brace.
    """

    def __init__(self, chunk: bytes, start: int, end: int, opening: bytes) -> None:
        self._chunk, self._start, self._end, self._opening = chunk, start, end, opening
        self._boundaries = chunk.count(_CLOSING + opening, start, end)
        self._braces = count_byte(chunk, b"}", start, end)

    def count(self) -> int:
        """Return the number of RECORDs; 0: it is not proven that all lines are such."""
        chunk, start, end = self._chunk, self._start, self._end
        if not chunk.startswith(self._opening, start) or not chunk.endswith(_CLOSING, start, end):
            return 0
        return self._proven(self._boundaries + 1, self._braces)

    def count_between(self, runs: Sequence[bytes], others: Sequence[bytes]) -> int:
        """Return the number of RECORDs between lines of another kind; 0: it is not proven that all others are such.

        Args:
            runs: the lines that must be RECORDs, as whole parts of the chunk.
            others: the lines that need not be, in parts; each stands behind one of `runs`.
        """
        if not all(map(bytes.startswith, runs, repeat(self._opening))):
            return 0
        if not all(map(bytes.endswith, runs, repeat(_CLOSING))):
            return 0
        # The text before a run may end as a RECORD does.
        before_runs = sum(map(bytes.endswith, others[: len(runs) - 1], repeat(_CLOSING)))
        return self._proven(self._boundaries - before_runs + len(runs), self._braces - b"".join(others).count(b"}"))

    @staticmethod
    def _proven(lines: int, braces: int) -> int:
        # Between two boundaries are at least two braces. No more: then no line of another kind is there.
        return lines if braces == 2 * lines else 0


def is_ambiguous(lines: bytes, count: int, prefix: bytes, opening: bytes) -> bool:
    """Return whether readers may read one of several RECORD lines differently.

    Args:
        lines: RECORD lines, each of which begins with `prefix`.
        count: how many they are.
        prefix: the beginning of the lines, up to the record.
        opening: the same with the record's brace, as most lines have it.
    """
    envelopes = _decode(lines, count)
    if envelopes is not None and _nothing_else(lines, envelopes, prefix):
        return False
    texts = lines.split(b"\n")
    texts.pop()
    known = [None] * len(texts) if envelopes is None else envelopes
    tail = b"}"
    for text, envelope in zip(texts, known, strict=True):
        record = _record(text) if envelope is None else envelope.record
        rest = None if record is None or not text.startswith(opening) else text[len(opening) - 1 + len(record) :]
        if rest != tail:
            if rest is not None and _TAIL.fullmatch(rest):
                tail = rest
            elif why_ambiguous(text, record):
                return True
    return False


def records_fill_lines(lines: Buffer, count: int, prefix: bytes) -> bool:
    """Return whether each line is proven to be `prefix`, one JSON value and a brace.

    Args:
        lines: lines, each of which begins with `prefix`.
        count: how many they are.
        prefix: the beginning of the lines, up to the record.
    """
    envelopes = _decode(lines, count)
    return envelopes is not None and _nothing_else(lines, envelopes, prefix)


def record_ends_line(line: bytes, record: Buffer | msgspec.Raw) -> bool:
    """Return whether a RECORD line is proven to have other members only once and before its record.

    Its time does not depend on the record's length.

    Args:
        line: the line, with its newline.
        record: the text of its record, as a JSON parser has read it.
    """
    start = line.find(_RECORD_KEY, 0, _HEAD) + len(_RECORD_KEY)
    opening = line.find(b"{", start, start + _HEAD)
    # A second record, or text behind the record, would make the line longer.
    if start < len(_RECORD_KEY) or opening < 0 or opening + len(record) + 2 != len(line):
        return False
    head = line[:opening] + b"0}"
    value = _record(head)
    return value is not None and bytes(value) == b"0" and why_ambiguous(head) is None


def _decode(lines: Buffer, count: int) -> list[_RecordMember] | None:
    try:
        envelopes = _decoder.decode_lines(lines)
    except _UNREADABLE:
        return None
    return envelopes if len(envelopes) == count else None  # several messages in a line


def _nothing_else(lines: Buffer, envelopes: list[_RecordMember], prefix: bytes) -> bool:
    # A line with anything else than its record, a brace and a newline is longer than that. None is shorter.
    records = sum([len(envelope.record) for envelope in envelopes])
    return records + len(envelopes) * (len(prefix) + 2) == len(lines)


def _record(line: bytes) -> msgspec.Raw | None:
    try:
        return _decoder.decode(line).record
    except _UNREADABLE:
        return None


def why_ambiguous(line: bytes, value: Buffer | msgspec.Raw | None = None) -> str | None:
    """Return why readers may read a message differently, as a noun phrase; None: they cannot.

    Args:
        line: a JSON object. Text that is not JSON is not checked: no reader accepts it.
        value: the text of its largest member; it makes the check fast.
    """
    # The value's place is certain only if its text stands in the line once.
    if value is not None and len(value) >= _LONG_VALUE and line.count(text := bytes(value)) == 1:
        line = line.replace(text, b"0")
    names: set[str] = set()
    depth = 0
    name = b""
    end = len(line)
    for match in _TOKEN.finditer(line):
        token = match[0]
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
            if depth <= 0:
                end = match.end()
                break
        elif depth == 1:
            if token != b":":
                name = token
            elif (folded := _text(name).casefold()) in names:
                return f"a message with {_text(name)!r} twice"
            else:
                names.add(folded)
    return "more text after a message" if line[end:].strip() else None


def _text(token: bytes) -> str:
    text = token.decode("utf-8", "surrogateescape")
    if "\\" not in text:
        return text[1:-1]
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        return text


def without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object of the members that a JSON parser has read.

    Raises:
        ValueError: a name stands in it twice.
    """
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} twice in one object")
    return members
