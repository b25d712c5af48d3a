"""What must be in the tables of a random case of `tables_cases.py`, and when two values mean the same.

append: each record is a row. upsert: of each key there is one row, and what a record does not have keeps its value, but
for the mark of a deletion. replace, and versions: the rows of the newest complete run. The model knows nothing of the
targets.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any

from tests.faults.matrix import FaultError
from tests.faults.tables_cases import Sent

Cell = list[tuple[Any, str]]
"""Values that a cell may have, with what they mean: several where rows became one."""
MISSING: Cell = [(None, "plain")]


@dataclass
class Row:
    """A row; `times` is how often it must be there, None where it may have been sent again."""

    cells: dict[str, Cell]
    version: int | None = None
    times: int | None = 1

    @property
    def number(self) -> int:
        """The number of the record that wrote it last."""
        value: int = self.cells["n"][0][0]
        return value


@dataclass
class Table:
    """Rows that readers see, and those that wait for a version or for the end of the input."""

    rows: list[Row] = field(default_factory=list)
    waiting: list[Row] = field(default_factory=list)

    def take(self, sent: Sent, keys: list[str], *, waits: bool, ignore: bool, again: bool) -> None:
        """Load a record."""
        rows = self.waiting if waits else self.rows
        cells: dict[str, Cell] = {
            name: [(value, sent.meanings.get(name, "plain"))] for name, value in sent.body["record"].items()
        }
        new = Row(cells, sent.body.get("version"), None if again else 1)
        if keys:
            key = [meaning(*cells[name][0]) for name in keys]
            same = [row for row in rows if [meaning(*row.cells.get(name, MISSING)[0]) for name in keys] == key]
            if same and ignore:
                return
            new.times = 1
            for row in same:
                for name, cell in row.cells.items():
                    if name not in sent.body["record"] and name != "_sdc_deleted_at":
                        cells[name] = [*cells.get(name, []), *cell]
            rows[:] = [row for row in rows if row not in same]
        rows.append(new)

    def put_in_place(self) -> None:
        """Make the waiting rows the table."""
        self.rows, self.waiting = self.waiting, []


def meaning(value: Any, kind: str) -> Any:
    """Return what a value means: equal for values that are spelled differently."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float, Decimal)):
        return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if isinstance(value, str):
        if kind == "decimal":
            with contextlib.suppress(InvalidOperation):
                return Decimal(value)
        if kind == "moment":
            return _moment(value)
        if kind == "time":
            return _time(value)
        return value
    return json.dumps(value, sort_keys=True, default=str)


def _moment(text: str) -> Any:
    if re.search(r"\.\d{7}", text):
        return text.replace(" ", "T")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _time(text: str) -> Any:
    if len(text.partition(".")[2]) > 6:
        return text
    try:
        return time.fromisoformat(text)
    except ValueError:
        return text


def same(got: Any, sent: Any, kind: str) -> bool:
    """Whether a cell of a table holds a value that was sent."""
    if got is None or sent is None:
        return got is None and sent is None
    if kind == "binary" and isinstance(got, bytes):
        return base64.b64encode(got).decode() == sent
    if isinstance(got, str):
        return _same_text(got, sent, kind)
    if isinstance(got, bool) or isinstance(sent, bool):
        return got is sent
    if isinstance(got, datetime):
        got = got.astimezone(UTC).replace(tzinfo=None) if got.tzinfo else got
        return bool(_moment(sent) == got)
    if isinstance(got, date):
        return bool(_moment(sent) == datetime(got.year, got.month, got.day))
    if isinstance(got, time):
        return bool(_time(sent) == got)
    if isinstance(got, (int, float, Decimal)):
        return not isinstance(sent, (dict, list)) and meaning(got, "plain") == meaning(sent, kind)
    return bool(got == sent)


def _same_text(got: str, sent: Any, kind: str) -> bool:
    if isinstance(sent, str):
        texts = [got, *(text for text in [_json(got)] if isinstance(text, str))]
        return any(text == sent or (kind != "plain" and meaning(text, kind) == meaning(sent, kind)) for text in texts)
    if isinstance(sent, bool):
        return got == str(sent).lower()
    if isinstance(sent, (int, float, Decimal)):
        try:
            return Decimal(got) == meaning(sent, "plain")
        except InvalidOperation:
            return False
    return bool(_json(got) == sent)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def compare(place: str, table: Table, held: list[dict[str, Any]]) -> None:
    """Compare a table with its rows, and note how often each one is there.

    Raises:
        FaultError: they differ.
    """
    by_number: dict[int, list[dict[str, Any]]] = {}
    for record in held:
        by_number.setdefault(int(record["n"]), []).append(record)
    for row in table.rows:
        found = by_number.pop(row.number, [])
        if not found or len(found) != (row.times or len(found)):
            raise FaultError(f"{place}: {row.times} rows expected, {found} there of {_shown(row)}")
        row.times = len(found)
        for record in found:
            _compare_row(place, row, record)
    if by_number:
        raise FaultError(f"{place}: rows that should not be there: {list(by_number.values())[:3]}")


def _compare_row(place: str, row: Row, record: dict[str, Any]) -> None:
    # The values of columns whose names differ by case tell where they belong.
    loose = {name for name in row.cells if name.lower() in ("name", "new")}
    texts = {value for name, value in record.items() if name.lower().partition("_")[0] in ("name", "new")}
    for name, cell in row.cells.items():
        got = record.get(name)
        if name in loose:
            if not any(value is None or value in texts for value, _ in cell):
                raise FaultError(f"{place}: {name!r} of {_shown(row)} is not there: {record}")
        elif not any(same(got, *each) for each in cell):
            raise FaultError(f"{place}: {name!r} is {got!r}, not one of {cell}: {record}")
    sent = {value for name in loose for value, _ in row.cells[name]}
    if texts - sent - {None}:
        raise FaultError(f"{place}: {texts - sent} was not sent: {_shown(row)}")
    for name, got in record.items():
        if got is not None and name not in row.cells and name.lower().partition("_")[0] not in ("name", "new"):
            raise FaultError(f"{place}: {name!r} is {got!r}, nothing was sent: {_shown(row)}")


def _shown(row: Row) -> dict[str, Any]:
    return {name: cell[0][0] if len(cell) == 1 else cell for name, cell in row.cells.items()}
