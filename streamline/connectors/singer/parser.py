"""Parses a tap's output into items, and decodes as little of it as possible.

A tap prints mostly RECORD lines, all of which begin with the same bytes in a stream, up to the record itself:
`{"type":"RECORD","stream":"orders","record":`. That prefix is learned from the stream's first record. A JSON text
has no raw newline inside a value, so newline + prefix can occur only at the start of a line. So a chunk with as many
newlines as newline + prefix contains only records of that stream and is not decoded. The same is true for STATE
lines. In chunks with records of several streams, the prefix of each line is looked up. Other chunks are parsed line by
line, and only lines without a known prefix are decoded, without their record.
`record_lines` proves that what is not decoded has nothing behind its record that a target could read otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from io import BytesIO

from streamline.connectors.singer.message_reader import MessageReader, TapOutputError
from streamline.connectors.singer.record_lines import FlatRecords, count_byte, is_ambiguous, why_ambiguous
from streamline.connectors.singer.segment import Segment
from streamline.connectors.singer.state import repeats_keys
from streamline.flow.items import Item

MAX_RECORD_BYTES = 256 << 20
"""A longer line fails the tap, with its stream named; shorter ones pass, whatever the chunk size."""

_LONGEST_PREFIX = 256
_RECORD_KEY = b'"record":'
_HEAD = 512
"""A prefix is looked for in so many bytes of a line."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_STATE_PREFIXES = (b'{"type":"STATE",', b'{"type": "STATE",')

_Group = tuple[bytes, bytes, int]
"""Lines of one stream: the prefix that they share, their text, their number."""


def _common_prefix(left: bytes, right: bytes) -> bytes:
    size = min(len(left), len(right), _LONGEST_PREFIX)
    # The highest bit in which two numbers differ is in the first byte in which their texts do.
    difference = int.from_bytes(left[:size], "big") ^ int.from_bytes(right[:size], "big")
    return left[: size - (difference.bit_length() + 7) // 8]


class TapParser:
    """Parses chunks of a tap's output into items.

    Records between two STATEs are grouped by stream (`Segment`). Of several STATEs in one chunk only the last is
    returned, in its place, unless it lacks a bookmark of the one before. Empty ones (`{}`, `null`) are no positions.

    Args:
        source: the source id of the positions.
        tap: the tap's name, for errors.
        log: called with each line that is not a message (some taps print other text to their standard output).
        mask: masks secrets in text that errors quote.
        max_record_bytes: the maximum length of a line.
    """

    def __init__(
        self,
        source: str,
        *,
        tap: str,
        log: Callable[[str], None],
        mask: Callable[[str], str] = str,
        max_record_bytes: int = MAX_RECORD_BYTES,
    ) -> None:
        self._tap = tap
        self._log = log
        self._messages = MessageReader(tap, log=log, mask=mask)
        self._max = max_record_bytes
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._streams: dict[bytes, tuple[str, bytes]] = {}
        """By prefix: the stream, and the beginning of most of its lines, up to the record's brace."""
        self._state_prefix = _STATE_PREFIXES[0]
        self._last_state = b""
        self._segment = Segment(source)

    def feed(self, chunk: bytes) -> list[Item]:
        """Return the items that `chunk` completes.

        Raises:
            TapOutputError: a line that begins with `{` is not a message, or a line is too long.
        """
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            self._keep(chunk)
            return []
        start = 0
        try:
            if self._rest:
                start = chunk.find(b"\n") + 1
                self._rest.append(chunk[:start])
                line = b"".join(self._rest)
                self._rest.clear()
                self._rest_bytes = 0
                self._region(line, 0, len(line))
            if start < cut:
                self._region(chunk, start, cut)
        except TapOutputError as error:
            error.items = self._segment.take()
            raise
        if cut < len(chunk):
            self._keep(chunk[cut:])
        return self._segment.take()

    def finish(self) -> list[Item]:
        """Return the remaining items at the end of the tap's output.

        Raises:
            TapOutputError: it ended in the middle of a message.
        """
        line = b"".join(self._rest)
        self._rest.clear()
        if not line.strip():
            return []
        # Some taps leave out the last newline.
        try:
            json.loads(line)
        except RecursionError:
            pass
        except ValueError:
            if line.lstrip()[:1] == b"{":
                raise TapOutputError(
                    f"its output ended in the middle of a line, after {len(line):,} bytes of it",
                    where=self._tap,
                    hint="it crashed or was killed while writing; everything before that line is kept",
                    code="tap.output_truncated",
                ) from None
        self._region(line + b"\n", 0, len(line) + 1)
        return self._segment.take()

    def _keep(self, part: bytes) -> None:
        self._rest.append(part)
        self._rest_bytes += len(part)
        if self._rest_bytes > self._max:
            prefix = self._known_prefix(b"".join(self._rest), 0)
            stream = self._streams[prefix][0] if prefix else None
            self._rest.clear()
            error = TapOutputError(
                f"a line is longer than {self._max:,} bytes" + (f" in stream {stream!r}" if stream else ""),
                where=self._tap,
                hint="leave out the column (streams: … columns), or raise max_record_bytes in the source block",
                code="tap.line_too_long",
            )
            error.items = self._segment.take()
            raise error

    # -- whole lines: chunk[start:end] begins at the start of a line and ends after a newline

    def _region(self, chunk: bytes, start: int, end: int) -> None:
        while start < end and chunk.startswith(self._state_prefix, start):
            stop = chunk.find(b"\n", start, end) + 1
            self._message(chunk[start:stop])
            start = stop
        if not self._add_known_lines(chunk, start, end):
            self._line_by_line(chunk, start, end)

    def _add_known_lines(self, chunk: bytes, start: int, end: int) -> bool:
        """Add a region that begins with a RECORD and has only RECORDs with known prefixes, and STATEs.

        Only the last STATE is decoded.

        Returns:
            False if there may be another line, if readers may read a RECORD differently, or if an earlier STATE may
            count. Then nothing is added.
        """
        if start == end:
            return True
        prefix = self._known_prefix(chunk, start)
        if prefix is None:
            return False
        stream, opening = self._streams[prefix]
        flat = FlatRecords(chunk, start, end, opening)
        if count := flat.count():
            self._segment.add(stream, memoryview(chunk)[start:end], count, prefix)
            return True
        runs, states = self._split_states(chunk, start, end)
        if not states:
            groups = self._group(chunk[start:end])
            self._add(groups or ())
            return groups is not None
        position = self._newest_position(states)
        if position is None:
            return False
        before, after = b"".join(runs[: len(states)]), b"".join(runs[len(states) :])
        groups_before: list[_Group] | None
        groups_after: list[_Group] | None
        if count := flat.count_between(runs, states):
            count_after = 1 + after.count(b"\n" + prefix) if after else 0
            groups_before = [(prefix, before, count - count_after)]
            groups_after = [(prefix, after, count_after)] if after else []
        else:
            groups_before, groups_after = self._group(before), self._group(after)
        if groups_before is None or groups_after is None:
            return False
        self._add(groups_before)
        self._segment.set_state(position)
        self._add(groups_after)
        return True

    def _split_states(self, chunk: bytes, start: int, end: int) -> tuple[list[bytes], list[bytes]]:
        """Split a region, the first line of which is no STATE: the lines before, between and after STATEs, and these.

        STATEs that follow one another are one text. Without STATEs, the region is not copied.
        """
        prefix = self._state_prefix
        needle = b"\n" + prefix
        find, startswith = chunk.find, chunk.startswith
        runs: list[bytes] = []
        states: list[bytes] = []
        position = start
        newline = find(needle, start, end)
        while newline >= 0:
            state_at = newline + 1
            runs.append(chunk[position:state_at])
            position = find(b"\n", state_at, end) + 1
            while position < end and startswith(prefix, position):
                position = find(b"\n", position, end) + 1
            states.append(chunk[state_at:position])
            newline = find(needle, position, end)
        if states and position < end:
            runs.append(chunk[position:end])
        return runs, states

    def _newest_position(self, states: list[bytes]) -> bytes | None:
        """Return the value of the last STATE, the only one that is decoded.

        None: an earlier one may count, because the last one is not valid, has no position, or may lack a bookmark that
        one before it has.

        Args:
            states: one or several STATE lines each.
        """
        last = states[-1]
        line = last[last.rfind(b"\n", 0, -1) + 1 :]
        several = len(states) > 1 or len(line) < len(last)
        if several and not repeats_keys(self._state_prefix):
            return None
        try:
            value = self._messages.position(line, self._messages.read(line))
        except TapOutputError:
            return None  # raised again when all lines before it are added
        self._learn_state_prefix(line)
        return value

    def _group(self, text: bytes) -> list[_Group] | None:
        """Group RECORD lines by their prefix.

        None: a line has no known prefix, or readers may read one differently.
        """
        prefix = self._known_prefix(text, 0)
        count = count_byte(text, b"\n", 0, len(text))
        if prefix is not None and 1 + text.count(b"\n" + prefix) == count:
            groups = [(prefix, text, count)]
        else:
            lines = BytesIO(text).readlines()
            # Without the key it is shorter than any prefix.
            prefixes = [line[: line.find(_RECORD_KEY, 0, _HEAD) + len(_RECORD_KEY)] for line in lines]
            by_prefix: dict[bytes, list[bytes]] = {prefix: [] for prefix in prefixes}
            if not by_prefix.keys() <= self._streams.keys():
                return None
            for prefix, line in zip(prefixes, lines, strict=True):
                by_prefix[prefix].append(line)
            groups = [(prefix, b"".join(part), len(part)) for prefix, part in by_prefix.items()]
        for prefix, part, count in groups:
            _, opening = self._streams[prefix]
            flat = FlatRecords(part, 0, len(part), opening).count() == count
            if not flat and is_ambiguous(part, count, prefix, opening):
                return None
        return groups

    def _add(self, groups: Iterable[_Group]) -> None:
        for prefix, part, count in groups:
            self._segment.add(self._streams[prefix][0], part, count, prefix)

    def _line_by_line(self, chunk: bytes, start: int, end: int) -> None:
        position = records_start = start
        prefix = None
        while position < end:
            stop = chunk.find(b"\n", position, end) + 1
            if prefix is None or not chunk.startswith(prefix, position):
                self._add_run(chunk, records_start, position)
                records_start = position
                prefix = self._known_prefix(chunk, position)
                if prefix is None:
                    self._line(chunk[position:stop])
                    records_start = stop
            position = stop
        self._add_run(chunk, records_start, end)

    def _add_run(self, chunk: bytes, start: int, end: int) -> None:
        """Add lines that all begin with the same known prefix."""
        if not self._add_known_lines(chunk, start, end):
            for line in BytesIO(chunk[start:end]):
                self._line(line)

    def _line(self, line: bytes) -> None:
        line = line.removeprefix(_BYTE_ORDER_MARK)
        if self._add_known_lines(line, 0, len(line)):
            return
        if self._known_prefix(line, 0) and (reason := why_ambiguous(line)):
            raise self._messages.invalid(line, reason, code="tap.message_ambiguous")
        if line.lstrip()[:1] == b"{":
            self._message(line)
        elif text := line.decode("utf-8", "replace").rstrip():
            self._log(text)

    def _known_prefix(self, chunk: bytes, start: int) -> bytes | None:
        """Return the prefix of the line at `start`; None if it is none of those that were learned."""
        # Without the key, or with that of a later line, it is none.
        prefix = chunk[start : chunk.find(_RECORD_KEY, start, start + _HEAD) + len(_RECORD_KEY)]
        return prefix if prefix in self._streams else None

    # -- single messages

    def _message(self, line: bytes) -> None:
        message = self._messages.read(line)
        if message.type == "STATE":
            value = self._messages.position(line, message)
            self._learn_state_prefix(line)
            if value is not None:
                self._segment.set_state(value)
        elif message.type == "RECORD":
            stream = self._messages.stream_of_record(line, message)
            self._learn_prefix(line, stream)
            self._segment.add(stream, line, 1, self._known_prefix(line, 0))
        else:
            self._segment.close_with(self._messages.item(line, message))

    def _learn_prefix(self, line: bytes, stream: str) -> None:
        key = line.find(_RECORD_KEY, 0, _HEAD)
        if key < 0:
            return
        prefix = line[: key + len(_RECORD_KEY)]
        try:
            head = json.loads(prefix + b"null}")
        except ValueError:
            return
        # Only a prefix that all records of the stream share is useful.
        if head == {"type": "RECORD", "stream": stream, "record": None}:
            opening = line[: line.find(b"{", len(prefix)) + 1]
            self._streams[prefix] = (stream, opening)

    def _learn_state_prefix(self, line: bytes) -> None:
        """Learn the common prefix of STATE lines, up to a colon: the longer it is, the faster the search."""
        for prefix in _STATE_PREFIXES:
            if line.startswith(prefix):
                common = _common_prefix(self._last_state, line)
                self._last_state = line
                self._state_prefix = max(prefix, common[: common.rfind(b":") + 1], key=len)
