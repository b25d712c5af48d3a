"""Calls a transformer's function with messages. Runs in the thread of its block."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any

import msgspec

from streamline.blocks.python.function import BlockFile, PythonFunction, Shape, UserError, shape_of
from streamline.blocks.python.messages.frames import from_frame, to_frame
from streamline.blocks.python.messages.keyed_state import BlockState
from streamline.blocks.python.messages.parking import Parking
from streamline.blocks.python.messages.window_settings import Window, window_settings
from streamline.blocks.python.messages.windows import Windows
from streamline.decorators import marks_of
from streamline.errors import ConfigError, PipelineFailed
from streamline.flow.bisection import bisect
from streamline.flow.codecs.message_data import dump_data
from streamline.flow.items import BadRecord, Item, MessageBatch, Origin
from streamline.flow.keyed_state import Place, StateStore
from streamline.flow.stages.copies import Snapshot
from streamline.flow.stages.park import PARKED_ERROR

BATCH_SIZE = 100
"""Messages of one call, unless something else is set."""


class MessageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the calls of a transformer block have in common.

    Args:
        block: its file.
        batch_size: the most messages of one call.
        keywords: keyword arguments for every call; `stream` is added, and `logger` if there is none.
        include_metadata: the messages are `{data, metadata}`.
        timeout: seconds that one call may take; None: no limit.
        park: messages behind a refused one of their key are refused, too.
        max_raised: on so many messages in a row, the function is broken; None: on any number.
        state: makes what keeps the block's state; None: it has none. A batch then has messages of one partition.
    """

    block: BlockFile
    batch_size: int = BATCH_SIZE
    keywords: Mapping[str, Any] = {}
    include_metadata: bool = False
    timeout: float | None = None
    park: bool = False
    max_raised: int | None = None
    state: Callable[[], StateStore] | None = None


class MessageCaller:
    """The function of a transformer block.

    A message that the function returns as the same object keeps its origin; others have none. They have a lineage where
    it returns as many as it got, or got only one: each is made of the message in its place. Where it raises, it is
    called again with halves of the messages, as they were before, down to single ones; those are refused. A tombstone
    that it raises on passes unchanged.

    Args:
        began: called before each call.
        waits: called when the block has to wait for something other than its function.

    Raises:
        ConfigError: see `PythonFunction`; or the function takes a frame, which has no place for metadata.
        UserError: the file raised while it was loaded.
    """

    def __init__(
        self, settings: MessageSettings, began: Callable[[], None], waits: Callable[[], None] = lambda: None
    ) -> None:
        self._began = began
        self._waits = waits
        self._settings = settings
        self._shape = shape_of(settings.block, Shape.ROWS)
        self._function = PythonFunction(settings.block, "transformer")
        if settings.include_metadata and self._shape is not Shape.ROWS:
            raise ConfigError(
                "messages with metadata cannot be given as a table",
                where=self._function.where,
                hint="annotate its first parameter as list[dict], or leave out `include_metadata` in the source",
                code="transformer.metadata_in_table",
            )
        logger = logging.getLogger(f"streamline.blocks.{settings.block.uuid}")
        self._offered = {"logger": logger, **settings.keywords}
        self._keywords: dict[str, dict[str, Any]] = {}
        self._loop: asyncio.Runner | None = None
        self.parking = Parking() if settings.park else None
        self._raised = 0
        """On how many messages in a row it has raised."""
        self.state: BlockState | None = None
        if settings.state is not None:
            waits()
            self.state = BlockState(settings.state())
            self._offered["state"] = self.state.calls
        self._windows = self._make_windows()

    def run(self, batch: MessageBatch, *, set_aside: bool, place: Place | None = None) -> list[Item]:
        """Return what becomes of messages: one batch, and those that are refused.

        Args:
            set_aside: refuse messages that the function raises on. If not, the first of them is an error.
            place: see `BlockState.open`.

        Raises:
            PipelineFailed: see `set_aside`; or it raised on too many in a row.
        """
        if self.state is not None:
            self._waits()
            self.state.open(batch, place)
        if self._windows is not None:
            self._began()
            return self._windows.run(batch)
        return _Run(self, batch, set_aside).items()

    def close(self) -> None:
        """End the event loop of a function that is a coroutine, and what keeps the state."""
        if self.state is not None:
            self.state.close()
        if self._loop is not None:
            self._loop.close()

    @property
    def batch_size(self) -> int:
        """The most messages of one call."""
        return self._settings.batch_size

    @property
    def block(self) -> str:
        """The block's uuid."""
        return self._settings.block.uuid

    @property
    def takes_tombstones(self) -> bool:
        """Whether None can be given to the function."""
        return self._shape is Shape.ROWS

    def call(self, messages: list[Any], stream: str) -> list[Any]:
        """Call the function once.

        Raises:
            UserError: it raised, or returned something other than messages; or these messages have no table.
        """
        keywords = self._keywords.get(stream)
        if keywords is None:
            keywords = self._function.keywords({**self._offered, "stream": stream}, positionals=1)
            self._keywords[stream] = keywords
        given: Any = messages
        if self._shape is not Shape.ROWS:
            try:
                given = to_frame(messages, self._shape)
            except ValueError as error:
                raise UserError(str(error), "", self._function.where) from None
        self._began()
        result = self._function.call(given, keywords=keywords)
        if type(result) is not list:
            result = messages if result is given and self._unchangeable else self._messages(result)
        self._raised = 0
        return result

    @property
    def _unchangeable(self) -> bool:
        return self._shape in (Shape.TABLE, Shape.RECORD_BATCH)

    def _messages(self, result: Any) -> list[Any]:
        if inspect.isawaitable(result):
            result = self._awaited(result)
        if result is None:
            return []
        if isinstance(result, dict):
            return [result]
        if isinstance(result, list):
            return result
        if isinstance(result, tuple) or hasattr(result, "__next__"):
            try:
                return list(result)
            except (Exception, SystemExit) as error:
                raise self._function.error(error) from None
        try:
            rows = from_frame(result)
        except ValueError as error:
            raise self._wrong(str(error)) from None
        if rows is None:
            raise self._wrong(f"a value of type {type(result).__name__}")
        return rows

    def _make_windows(self) -> Windows | None:
        mark = next((mark for mark in marks_of(self._function.function) if mark.kind == "window"), None)
        if mark is None:
            return None
        settings = window_settings(mark.args, mark.kwargs, self._function.where)
        if self.state is None:
            raise ConfigError(
                "the function has @window, which its file does not show",
                where=self._function.where,
                hint="write `@window(…)` right above `@transformer`",
                code="window.invalid",
            )
        return Windows(settings, self.state, self.block, self)

    def close_window(self, key: str, window: Window, contents: Any, stream: str) -> list[Any]:
        """See `WindowFunction.close_window`."""
        keywords = self._keywords.get(stream)
        if keywords is None:
            keywords = self._function.keywords({**self._offered, "stream": stream}, positionals=3)
            self._keywords[stream] = keywords
        self._began()
        try:
            result = self._function.call(key, window, contents, keywords=keywords)
            return [result] if type(result) is dict else self._messages(result)
        except UserError as error:
            raise self.failed(error, f"failed with the window of {key!r} from {window.start.isoformat()}") from None

    def _awaited(self, result: Any) -> Any:
        async def wait() -> Any:
            return await result

        if self._loop is None:
            self._loop = asyncio.Runner()
        try:
            return self._loop.run(wait())
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            raise self._function.error(error) from None

    def _wrong(self, what: str) -> UserError:
        return UserError(
            f"the function returned {what}; it must return a list of messages, one message (a dict), a DataFrame, an "
            "Arrow table or None",
            "",
            self._function.where,
        )

    def error(self, error: BaseException) -> UserError:
        """See `WindowFunction.error`."""
        return self._function.error(error)

    def worked(self) -> None:
        """See `WindowFunction.worked`."""
        self._raised = 0

    def raised(self, error: UserError) -> None:
        """Count a message that the function raised on.

        Raises:
            PipelineFailed: they are too many in a row.
        """
        self._raised += 1
        if self._settings.max_raised is not None and self._raised >= self._settings.max_raised:
            failure = self.failed(error, f"raised on {self._raised:,} messages in a row, the last time")
            failure.code = "dead_letter.too_many"
            failure.hint = failure.hint or "mend the block; `max_dead_letters` in metadata.yaml sets the limit"
            raise failure

    def failed(self, error: UserError, doing: str) -> PipelineFailed:
        """Return the error that ends the attempt."""
        trace = f"\n{error.trace}" if error.trace else ""
        return PipelineFailed(
            f"transformer {self.block} {doing}: {error.summary}{trace}",
            blocks=[self.block],
            where=error.where,
            hint=error.hint,
            code="transformer.failed",
        )


class _Run:
    """The calls for one batch."""

    def __init__(self, caller: MessageCaller, batch: MessageBatch, set_aside: bool) -> None:
        self._caller = caller
        self._batch = batch
        self._set_aside = set_aside
        self._data: list[Any] = []
        self._origins: list[Origin | None] = []
        self._lineage: list[Origin | None] = []
        self._bad: list[Item] = []

    def items(self) -> list[Item]:
        count, size = len(self._batch.data), self._caller.batch_size
        for start in range(0, count, size):
            self._chunk(start, min(start + size, count))
        if not self._data:
            return self._bad
        origins = self._origins if any(self._origins) else None
        lineage = self._lineage if any(self._lineage) else None
        batch = msgspec.structs.replace(self._batch, data=self._data, origins=origins, lineage=lineage)
        return [batch, *self._bad]

    def _chunk(self, start: int, stop: int) -> None:
        given = self._batch.data[start:stop]
        before = Snapshot(given)
        whole = range(stop - start)
        error: UserError | None = None
        parking = self._caller.parking
        if not parking and (self._caller.takes_tombstones or all(message is not None for message in given)):
            error = self._call(given, whole, start)
            if error is None:
                return

        def run(part: Sequence[int]) -> UserError | None:
            pieces = _runs_of([number for number in part if not park(number)]) if parking else [part]
            for piece in pieces:
                failure = self._call(before.part(piece[0], piece[-1] + 1), piece, start)
                if failure is not None and piece != part:
                    bisect(piece, failure, run, refuse)
                elif failure is not None:
                    return failure
            return None

        def park(number: int) -> bool:
            return self._park(lambda: before.part(number, number + 1)[0], start + number)

        def refuse(number: int, failure: UserError) -> None:
            self._refuse(before.part(number, number + 1)[0], start + number, failure)

        pieces = _without_tombstones(given)
        if error is not None and len(pieces) == 1:
            bisect(whole, error, run, refuse)
            return
        for piece in pieces:
            error = run(piece)
            if error is not None:
                bisect(piece, error, run, refuse)

    def _call(self, given: list[Any], part: Sequence[int], start: int) -> UserError | None:
        """Call the function with messages of these numbers in the chunk; what it returns becomes output."""
        if given[0] is None and not self._caller.takes_tombstones:
            returned: list[Any] = given
        else:
            state = self._caller.state
            if state is not None:
                state.begin(self._batch, start + part[0], len(given))
            try:
                returned = self._caller.call(given.copy(), self._batch.stream)
            except UserError as error:
                return error
            if state is not None:
                state.keep()
        self._data += returned
        origins = self._batch.origins
        first = start + part[0]
        own = origins[first : first + len(given)] if origins is not None else [None] * len(given)
        same = len(returned) == len(given) and all(map(is_, returned, given))
        kept = own if same else _origins_of(returned, given, own)
        self._origins += kept
        if same and self._batch.lineage is None:
            self._lineage += [None] * len(given)
        else:
            self._lineage += self._lineage_of(kept, own, first)
        return None

    def _lineage_of(
        self, kept: Sequence[Origin | None], own: Sequence[Origin | None], first: int
    ) -> list[Origin | None]:
        """Return which messages were made of which, as far as can be seen.

        Args:
            kept: origin of what was returned, where it is what was given.
            own: origin of what was given.
            first: place of the first of these in the batch.
        """
        sources = list(own)
        if self._batch.lineage is not None:
            sources = [self._batch.made_of(first + number)[0] for number in range(len(own))]
        if len(own) == 1:
            return sources * len(kept)
        in_place = not any(kept) or all(each is None or each is own[place] for place, each in enumerate(kept))
        if in_place and len(kept) == len(own):
            return sources
        return [None] * len(kept)

    def _park(self, data: Callable[[], Any], number: int) -> bool:
        """Refuse a message of the batch if it has to wait for an earlier one."""
        origin, inferred = self._batch.made_of(number)
        if self._caller.parking is None or not self._caller.parking.takes(origin):
            return False
        self._bad.append(self._bad_record(data(), PARKED_ERROR, origin, inferred=inferred))
        return True

    def _refuse(self, message: Any, number: int, error: UserError) -> None:
        """Refuse a message of the batch that the function raised on."""
        batch = self._batch
        origin, inferred = batch.made_of(number)
        if message is None:
            self._data.append(None)
            self._origins.append(None if inferred else origin)
            self._lineage.append(origin if inferred else None)
            return
        if not self._set_aside:
            place = f" ({origin.topic}, partition {origin.partition}, offset {origin.offset})" if origin else ""
            raise self._caller.failed(error, f"failed with a message of {batch.stream}{place}")
        self._caller.raised(error)
        if self._caller.parking is not None:
            self._caller.parking.refused(origin)
        bad = self._bad_record(message, f"{error.summary} ({error.where})", origin, inferred=inferred)
        self._bad.append(msgspec.structs.replace(bad, trace=error.trace or None))

    def _bad_record(self, message: Any, error: str, origin: Origin | None, *, inferred: bool) -> BadRecord:
        record, form = dump_data(message)
        return BadRecord(
            self._batch.stream,
            record,
            error,
            self._caller.block,
            sink=self._batch.sink,
            origin=origin,
            form=form,
            inferred=inferred,
        )


def _runs_of(numbers: Sequence[int]) -> list[range]:
    """Return numbers that rise as ranges without gaps."""
    runs: list[range] = []
    for number in numbers:
        if runs and runs[-1].stop == number:
            runs[-1] = range(runs[-1].start, number + 1)
        else:
            runs.append(range(number, number + 1))
    return runs


def _without_tombstones(given: Sequence[Any]) -> list[range]:
    """Return the parts between the tombstones, and each tombstone alone, in order."""
    parts: list[range] = []
    start = 0
    for number, message in enumerate(given):
        if message is None:
            if start < number:
                parts.append(range(start, number))
            parts.append(range(number, number + 1))
            start = number + 1
    if start < len(given):
        parts.append(range(start, len(given)))
    return parts


def _origins_of(returned: Sequence[Any], given: Sequence[Any], origins: Sequence[Origin | None]) -> list[Origin | None]:
    """Return the origin of each returned message that is one of the given objects."""
    by_id = dict(zip(map(id, given), origins, strict=True))
    if len(by_id) == len(given):
        return [by_id.get(id(message)) for message in returned]
    # One object stands for several messages (a tombstone is None): they are taken in order.
    several: dict[int, list[Origin | None]] = {}
    for message, origin in zip(given, origins, strict=True):
        several.setdefault(id(message), []).append(origin)
    found: list[Origin | None] = []
    for message in returned:
        left = several.get(id(message))
        if not left:
            found.append(None)
        elif len(left) > 1 or message is None:
            found.append(left.pop(0))
        else:
            found.append(left[0])
    return found
