"""Dead letters as JSON and as text."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from streamline.cli.output import moment

if TYPE_CHECKING:
    from streamline.processes.job import Failure
    from streamline.state.store import DeadLetter


def letter_table(letters: list[DeadLetter], *, messages: bool) -> tuple[list[str], list[list[object]]]:
    """Return the heads and rows of a listing.

    Args:
        messages: they are of a streaming pipeline.
    """
    heads = ["TOPIC", "PARTITION", "OFFSET", "KEY"] if messages else ["BLOCK", "STREAM"]
    rows: list[list[object]] = []
    for letter in letters:
        place: list[object] = [letter.block, letter.stream]
        if messages:
            offset = [letter.partition, letter.offset]
            place = [letter.topic or letter.stream, *("" if each is None else each for each in offset)]
            place.append(_text(letter.key) if letter.key is not None else "")
        rows.append(
            [
                *(letter.id, *place, letter.stage, letter.destination or "", letter.error),
                *(letter.times, moment(letter.time)),
            ]
        )
    return ["ID", *heads, "STAGE", "DESTINATION", "ERROR", "TIMES", "LAST"], rows


def letter_json(letter: DeadLetter, *, messages: bool, whole: bool) -> dict[str, Any]:
    """Return a letter as JSON.

    Args:
        messages: it is of a streaming pipeline.
        whole: with the record, or with all of the message.
    """
    shown: dict[str, Any] = {
        "id": letter.id,
        "block": letter.block,
        "stream": letter.stream,
        "stage": letter.stage,
        "destination": letter.destination,
        "error": letter.error,
        "code": _failure(letter).code,
        "time": letter.time,
        "run_id": letter.run_id,
        "times": letter.times,
    }
    if messages:
        shown |= {
            "topic": letter.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "key": _json_bytes(letter.key),
            "written_since": letter.written_since,
        }
    if whole and messages:
        shown |= {
            "value": _json_bytes(letter.value),
            "headers": [[name, _json_bytes(value)] for name, value in letter.headers or ()],
            "message_time": _message_time(letter),
            "form": letter.form,
            "data": _data(letter),
            "traceback": letter.trace,
        }
    elif whole:
        from msgspec import Raw

        shown["record"] = Raw(letter.record.encode())
    return shown


def letter_lines(letter: DeadLetter, *, messages: bool) -> list[str]:
    """Return a letter's lines."""
    stage = letter.stage
    if letter.destination not in (None, letter.stage):
        stage = f"{letter.stage} for {letter.destination}"
    elif letter.output:
        stage = f"{letter.stage} (its output)"
    lines = [
        f"{letter.id}  {letter.block}  {letter.stream}  {stage}  run {letter.run_id}",
        f"  error:  {letter.error}",
    ]
    if not messages:
        return [*lines, f"  record: {letter.record}"]
    if letter.topic is not None:
        lines.append(f"  read:   {letter.topic}, partition {letter.partition}, offset {letter.offset}")
    if letter.message_time is not None:
        lines.append(f"  time:   {_message_time(letter)}")
    if letter.key is not None:
        lines.append(f"  key:    {_text(letter.key)}")
    lines += [
        f"  header: {name}: {_text(value) if value is not None else 'null'}" for name, value in letter.headers or ()
    ]
    if letter.topic is not None or letter.value is not None:
        lines.append(f"  value:  {_text(letter.value) if letter.value is not None else 'null (a tombstone)'}")
    if letter.form != "value":
        lines.append(f"  data:   {letter.record}{' (base64)' if letter.form == 'base64' else ''}")
    if letter.written_since is not None:
        lines.append(f"  newer:  a later message of its key was delivered (offset {letter.written_since})")
    if letter.trace:
        lines += ["  traceback:", *(f"    {line}" for line in letter.trace.rstrip().splitlines())]
    return lines


def _data(letter: DeadLetter) -> Any:
    """Return the data that a stage got, where it is not the value."""
    if letter.form == "json":
        from msgspec import Raw

        return Raw(letter.record.encode())
    if letter.form == "base64":
        return {"base64": letter.record}
    return letter.record if letter.form == "text" else None


def _json_bytes(data: bytes | None) -> Any:
    """Return bytes as text; as `{"base64": …}` where they are not UTF-8."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(data).decode()}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _message_time(letter: DeadLetter) -> str | None:
    if letter.message_time is None:
        return None
    try:
        time = datetime.fromtimestamp(letter.message_time / 1000, UTC)
    except (OverflowError, ValueError, OSError):  # Kafka takes any number
        return str(letter.message_time)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _failure(letter: DeadLetter) -> Failure:
    """Return why the record was refused."""
    from streamline.processes.job import Failure

    return Failure(
        message=letter.error,
        code="record.invalid"
        if letter.stage == "validate"
        else "record.schema_changed"
        if letter.stage == "schema_change"
        else "message.undecodable"
        if letter.stage == "decode"
        else "message.parked"
        if letter.stage == "park"
        else "record.refused",
    )
