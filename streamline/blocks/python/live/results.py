"""What the calls of a transformer's function become: items, in the order of their input, each after its SCHEMA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import reduce

from streamline.blocks.python.live.kinds import kind_of, most_digits
from streamline.blocks.python.live.messages import Returned
from streamline.blocks.python.live.output_schema import FunctionInput, OutputSchema
from streamline.blocks.python.live.workers import PendingCall
from streamline.flow.codecs import jsontext
from streamline.flow.codecs.jsontext import split_object
from streamline.flow.codecs.lanes import RowReader, arrow_to_raw, lines_of, record_text, rows_to_raw
from streamline.flow.items import (
    ActivateVersion,
    ArrowBatch,
    BadRecord,
    Buffer,
    FileBatch,
    Item,
    JSONObject,
    RawBatch,
    RowBatch,
    Schema,
)


class StreamOutput:
    """One stream under one SCHEMA."""

    def __init__(
        self,
        schema: Schema,
        block: str,
        before: StreamOutput | None,
        earlier: Callable[[str], Mapping[str, JSONObject]],
    ) -> None:
        self.number: int = 1 if before is None else before.number + 1
        self.given = schema
        self._before = before
        self._block = block
        self._earlier = earlier
        self._output: OutputSchema | None = None

    @property
    def output(self) -> OutputSchema:
        """The SCHEMA of the block's output. Made on use, when all output under the SCHEMA before is known."""
        if self._output is None:
            before = self._before._output if self._before is not None else None
            self._output = OutputSchema(self.given, self._block, before, self._earlier(self.given.stream))
            self._before = None
        return self._output

    def matches(self, schema: Schema) -> bool:
        """Whether `schema` is the same."""
        return (
            schema.schema == self.given.schema
            and schema.key_properties == self.given.key_properties
            and schema.bookmark_properties == self.given.bookmark_properties
        )

    def schema_if_due(self) -> list[Item]:
        """The SCHEMA, if it changed since it was sent."""
        if self.output.sent:
            return []
        self.output.sent = True
        return [self.output.message()]


class Passing:
    """An item that passes unchanged in its place, after the SCHEMA of `stream`."""

    def __init__(self, item: Item | None, stream: StreamOutput | None) -> None:
        self.item = item
        self._stream = stream

    def items(self) -> list[Item]:
        if self.item is None:  # the tap sent its SCHEMA again
            assert self._stream is not None
            output = self._stream.output
            return [output.message()] if output.sent else []
        needs_schema = isinstance(self.item, (ActivateVersion, FileBatch)) and self._stream is not None
        before = self._stream.schema_if_due() if needs_schema and self._stream is not None else []
        return [*before, self.item]


class CallResult:
    """A call, and the items made of its result."""

    def __init__(self, call: PendingCall, stream: StreamOutput) -> None:
        self.call = call
        self.stream = stream
        self._kinds: dict[str, frozenset[str]] | None = None
        self._rows: list[JSONObject] | None = None

    def items(self, returned: Sequence[Returned], block: str) -> list[Item]:
        """Convert what the function returned to items, the SCHEMA first where it changed."""
        return [item for each in returned for item in self._to_items(each, block)]

    def _to_items(self, returned: Returned, block: str) -> list[Item]:
        output = self.stream.output
        name = output.source.stream
        bad: list[Item] = [BadRecord(name, record_text(line), error, block) for line, error in returned.refused]
        raw: RawBatch | None = None
        unfit: list[tuple[bytes, str]] = []
        if returned.rows:
            rows, misfits = output.settle_rows(returned.rows, self._input(returned))
            raw = rows_to_raw(RowBatch(name, rows, returned.version, returned.time_extracted))
            for misfit in misfits:
                line = rows_to_raw(RowBatch(name, [misfit.row])).slices[0]
                unfit.append((record_text(bytes(line)), misfit.error))
        elif returned.table is not None and returned.table.num_rows:
            import pyarrow as pa

            given = returned.given if returned.given is not None else pa.schema([])
            table, misfit_rows, error = output.settle_table(returned.table, given, self._input(returned))
            raw = arrow_to_raw(ArrowBatch(name, table, returned.version, returned.time_extracted), given)
            if misfit_rows is not None:
                unfit = [(text, error) for text in _texts(arrow_to_raw(ArrowBatch(name, misfit_rows), given).slices)]
        if unfit:
            bad += self._unfit(unfit, raw, block)
        if raw is None or not raw.count:
            return bad
        return [*self.stream.schema_if_due(), raw, *bad]

    def _unfit(self, unfit: Sequence[tuple[bytes, str]], raw: RawBatch | None, block: str) -> list[Item]:
        """Bad records for output that does not fit the SCHEMA.

        They are the block's input, if their key identifies it: when such a record is sent again, the corrected block
        transforms it. Otherwise they are the output.
        """
        request = self.call.request
        assert request is not None
        name, keys = self.stream.output.source.stream, list(self.stream.output.source.key_properties or ())
        inputs: dict[str | None, list[bytes]] = {}
        for text in _texts(request.slices):
            inputs.setdefault(_key_of(text, keys), []).append(text)
        outputs = Counter(_key_of(text, keys) for text in [*dict(unfit), *_texts(raw.slices if raw else [])])
        bad: list[Item] = []
        for text, error in unfit:
            key = _key_of(text, keys)
            given = inputs.get(key, [])
            if key is not None and len(given) == 1 and outputs[key] == 1:
                bad.append(BadRecord(name, given[0], error, block))
            else:
                bad.append(BadRecord(name, text, error, block, output=True))
        return bad

    def _input(self, returned: Returned) -> FunctionInput:
        def fields() -> Iterator[Set[str]]:
            if returned.given is not None:
                return iter([frozenset(returned.given.names)])
            first, count = returned.span
            return (row.keys() for row in self.rows()[first : first + count])

        return FunctionInput(
            lambda: frozenset[str]().union(*fields()),
            lambda: reduce(lambda common, more: common & more, fields(), next(fields(), frozenset())),
            self.kinds,
            lambda name: most_digits(self.rows(), name),
        )

    def rows(self) -> list[JSONObject]:
        """The records of the call's request, decoded again because the function may have changed its copy."""
        if self._rows is None:
            request = self.call.request
            assert request is not None
            raw = RawBatch(request.stream, request.slices, request.count, 0)
            batches = RowReader(request.schema).read(raw, lambda text, error: None)
            self._rows = [row for batch in batches for row in batch.rows]
        return self._rows

    def kinds(self) -> Mapping[str, frozenset[str]]:
        """The kinds of values in each field of the call's request."""
        if self._kinds is None:
            kinds: dict[str, set[str]] = {}
            for row in self.rows():
                for field, value in row.items():
                    kinds.setdefault(field, set()).add(kind_of(type(value)))
            self._kinds = {field: frozenset(of_field) for field, of_field in kinds.items()}
        return self._kinds


def _texts(slices: Iterable[Buffer]) -> list[bytes]:
    """The JSON texts of the records in slices of RECORD lines."""
    return [record_text(line) for piece in slices for line in lines_of(piece)]


def _key_of(text: bytes, keys: Sequence[str]) -> str | None:
    """A text that is equal for records with equal keys; None if the key is missing."""
    try:
        members = split_object(text)
        return repr([jsontext.loads(bytes(members[key])) for key in keys]) if keys else None
    except (KeyError, ValueError, RecursionError):
        return None
