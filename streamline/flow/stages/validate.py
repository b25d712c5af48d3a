"""Validates every record against its stream's SCHEMA, so that one bad record does not fail its target.

Valid lines are forwarded unchanged, in the slices in which they were read. Validating a batch is one loop in native
code; only a batch that fails is validated line by line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.errors import StreamlineError
from streamline.flow.codecs import jsontext
from streamline.flow.codecs.lanes import record_text, to_raw
from streamline.flow.items import ArrowBatch, BadRecord, Buffer, Item, JSONObject, RawBatch, RowBatch, Schema
from streamline.flow.protocols import ImmediateStage
from streamline.flow.stages.lenient import is_date, lenient, validator

if TYPE_CHECKING:
    import jsonschema_rs

STAGE = "validate"
LEAST_BAD_RECORDS = 1_000
BAD_RECORDS_PER_CENT = 1
_SHOWN_ERRORS = 3
_LONGEST_ERROR = 400


class _RecordObject(msgspec.Struct, gc=False):
    record: dict[str, Any]


_decoder = msgspec.json.Decoder(_RecordObject)


class Counts(msgspec.Struct):
    """Counts of one stream: records, bad records among them, and the first errors."""

    records: int = 0
    bad: int = 0
    errors: list[str] = []


class BadRecordLimit:
    """Fails a stream with too many bad records.

    Args:
        most: the bad records allowed per stream, or a function that returns them for a stream; None: the larger of
            1,000 and 1 % of its records so far.
    """

    def __init__(self, most: int | Callable[[str], int | None] | None = None) -> None:
        self._most = most
        self.counts: dict[str, Counts] = {}

    def of(self, stream: str) -> Counts:
        """Return the counts of a stream."""
        return self.counts.setdefault(stream, Counts())

    def add(self, stream: str, records: int, errors: Sequence[str]) -> None:
        """Count records, good and bad; one error for each bad one.

        Raises:
            StreamlineError: there are now too many bad records.
        """
        counts = self.of(stream)
        counts.records += records
        if not errors:
            return
        counts.bad += len(errors)
        counts.errors = [*counts.errors, *errors][:_SHOWN_ERRORS]
        most = self._most(stream) if callable(self._most) else self._most
        if most is None:
            most = max(LEAST_BAD_RECORDS, counts.records * BAD_RECORDS_PER_CENT // 100)
        if counts.bad > most:
            shown = "".join(f"\n  - {error}" for error in counts.errors)
            raise StreamlineError(
                f"{counts.bad:,} of {counts.records:,} records do not fit its SCHEMA, more than max_bad_records"
                f" ({most:,}) allows; the first errors:{shown}",
                where=f"stream {stream}",
                hint="correct the source or its schema, or raise max_bad_records in the destination block",
                code="record.too_many_invalid",
            )


class ValidateStage(ImmediateStage):
    """Removes records that do not fit their stream's SCHEMA. Implements `flow.protocols.Stage`.

    Formats are not asserted (see `lenient`). A lone surrogate, which is not Unicode text, makes a record bad: schemas
    allow it, but targets fail on it. A record of a stream without SCHEMA passes.

    Args:
        max_bad_records: see `BadRecordLimit`.
        fail: raise at the first bad record.
        keys_of: the columns that identify a stream's rows in the target; a record needs a value for each. By default
            those of its SCHEMA.
        limit: a limit shared with other stages, instead of one by `max_bad_records`.
    """

    def __init__(
        self,
        max_bad_records: int | None = None,
        *,
        fail: bool = False,
        limit: BadRecordLimit | None = None,
        keys_of: Callable[[Schema], Sequence[str]] = lambda item: item.key_properties or (),
    ) -> None:
        self._limit = limit if limit is not None else BadRecordLimit(max_bad_records)
        self._fail = fail
        self._keys_of = keys_of
        self._validators: dict[str, tuple[JSONObject, Sequence[str], jsonschema_rs.Draft7Validator]] = {}

    @property
    def counts(self) -> Mapping[str, Counts]:
        """Counts by stream."""
        return self._limit.counts

    async def process(self, item: Item) -> Sequence[Item]:
        """Return the item; of a batch the valid records (as lines), and a `BadRecord` for each other one.

        Raises:
            StreamlineError: too many records are bad, or one is and `fail` is set, or the SCHEMA is not valid.
        """
        if isinstance(item, (RawBatch, RowBatch, ArrowBatch)):
            return self._raw(to_raw(item))
        if isinstance(item, Schema):
            known, keys = self._validators.get(item.stream), list(self._keys_of(item))
            if known is None or known[:2] != (item.schema, keys):
                self._validators[item.stream] = (item.schema, keys, _validator(item.stream, item.schema, keys))
        return [item]

    def _raw(self, batch: RawBatch) -> list[Item]:
        known = self._validators.get(batch.stream)
        if known is None:
            self._count(batch.stream, batch.count, [])
            return [batch]
        validator = known[2]
        is_valid = validator.is_valid
        good: list[Buffer] = []
        bad: list[BadRecord] = []
        for piece in batch.slices:
            try:
                if all(map(is_valid, [each.record for each in _decoder.decode_lines(piece)])):
                    good.append(piece)
                    continue
            except (msgspec.MsgspecError, ValueError, RecursionError):
                pass  # line by line
            good += _good_parts(batch.stream, piece, validator, bad)
        self._count(batch.stream, batch.count, bad)
        if not bad:
            return [batch]
        count = batch.count - len(bad)
        rest = RawBatch(batch.stream, good, count, sum(map(len, good)), batch.prefix)
        return [rest, *bad] if count > 0 else list(bad)

    def _count(self, stream: str, records: int, bad: Sequence[BadRecord]) -> None:
        if bad and self._fail:
            raise StreamlineError(
                f"a record does not fit its SCHEMA: {bad[0].error}",
                where=f"stream {stream}",
                hint="set `on_bad_record: quarantine` in the destination block to store such records and continue",
                code="record.invalid",
            )
        self._limit.add(stream, records, [each.error for each in bad])


def _validator(stream: str, schema: JSONObject, keys: Sequence[str]) -> jsonschema_rs.Draft7Validator:
    # Without `pattern` where a regular expression is of another dialect.
    schemas = [_with_keys(lenient(schema), keys), _with_keys(lenient(schema, patterns=False), keys)]
    # Looking for formats takes as long as all the rest.
    formats = {"validate_formats": True, "formats": {"date": is_date}} if _has_format(schemas[0]) else {}
    return validator(stream, schemas, **formats)


def _has_format(schema: Any) -> bool:
    """Return whether a schema, or a part of it, has a format."""
    if isinstance(schema, dict):
        return isinstance(schema.get("format"), str) or any(map(_has_format, schema.values()))
    return isinstance(schema, list) and any(map(_has_format, schema))


def _with_keys(schema: Any, keys: Sequence[str]) -> Any:
    """Return the schema, with a value required for each key, and no column required that it does not declare."""
    if isinstance(schema, dict) and "properties" in schema and "required" in schema:
        # One that is not selected may have been left out of `properties` alone.
        schema = {**schema, "required": [name for name in schema["required"] if name in schema["properties"]]}
    if not keys:
        return schema
    not_null = {key: {"not": {"type": "null"}} for key in keys}
    asked = {"required": list(dict.fromkeys(keys)), "properties": not_null}
    return {**schema, "allOf": [*schema.get("allOf", []), asked]} if isinstance(schema, dict) else asked


def _good_parts(
    stream: str, piece: Buffer, validator: jsonschema_rs.Draft7Validator, bad: list[BadRecord]
) -> Iterable[Buffer]:
    """Yield the parts of `piece` between its bad lines, which are appended to `bad`."""
    view = memoryview(piece)
    start = end = 0
    for line in _lines(bytes(piece)):
        begin, end = end, end + len(line)
        if not line.strip():
            continue
        error = _error_in_line(validator, line)
        if error is None:
            continue
        bad.append(BadRecord(stream, record_text(line.rstrip(b"\n")), error, STAGE))
        if begin > start:
            yield view[start:begin]
        start = end
    if end > start:
        yield view[start:end]


def _lines(data: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines


def _error_in_line(validator: jsonschema_rs.Draft7Validator, line: bytes) -> str | None:
    try:
        return _first_error(validator, _decoder.decode(line).record)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _error_in(validator, record_text(line))


def _error_in(validator: jsonschema_rs.Draft7Validator, text: bytes) -> str | None:
    """Return the error in a record's JSON text, which is read by the lenient parser."""
    try:
        record = jsontext.loads(text, decimals=True)
    except RecursionError:
        return "the record is nested too deeply"
    except ValueError as error:
        return f"not valid JSON: {error}"
    if not isinstance(record, dict):
        return "the record is not a JSON object"
    try:
        not_json = _not_json(record)
        if not_json is not None:
            return not_json
        return _first_error(validator, _with_plain_text(record))
    except (ValueError, RecursionError) as error:
        return f"the record cannot be validated: {error}"


def _first_error(validator: jsonschema_rs.Draft7Validator, record: Any) -> str | None:
    for error in validator.iter_errors(record):
        place = ".".join(str(step) for step in error.instance_path)
        # `_with_keys` is what asks for it.
        message = "the key is null" if error.instance is None and error.kind.name == "not" else error.message
        text = f"{place}: {message}" if place else message
        return text if len(text) <= _LONGEST_ERROR else text[: _LONGEST_ERROR - 1] + "…"
    return None


def _not_json(value: Any, place: str = "") -> str | None:
    """Return the first NaN, infinity or lone surrogate: Python's parser reads them."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f"{place.lstrip('.')}: {value} is not a JSON number"
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        return f"{place.lstrip('.')}: it contains a lone surrogate, which is not Unicode text"
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        error = _not_json(child, f"{place}.{key}")
        if error is not None:
            return error
    return None


def _with_plain_text(value: Any) -> Any:
    """Replace lone surrogates: the validator takes only UTF-8, and any letter gives the same result."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_with_plain_text(key): _with_plain_text(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_plain_text(each) for each in value]
    return value
