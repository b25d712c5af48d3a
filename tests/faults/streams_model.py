"""What must be in the destinations, the dead letters and the saved positions of a random case.

What lies before a saved position is in every destination or in the dead letters, as it was sent, and nothing else is.
Of records with a key the newest counts. Records without a key may arrive more than once after something failed.
The model knows nothing of the engine.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tests.faults.matrix import FaultError
from tests.faults.streams_cases import RAISES_ON, Case, Destination, Record, Sent, Source, Stream


@dataclass
class Found:
    """What a run left behind.

    Args:
        saved: (block, key of a bookmark) → number.
        letters: (block, destination or, where a record was not refused for one, the block or stage) → texts of records.
        held: destination → (table, text of a record) → how often.
        reads: (block, stream) → how often a table was read.
    """

    saved: Mapping[tuple[str, str], int]
    letters: Mapping[tuple[str, str], Collection[str]]
    held: Mapping[str, Counter[tuple[str, str]]]
    reads: Mapping[tuple[str, str], int]


def text_of(record: Record) -> str:
    """Return a text that is equal for equal records."""
    return json.dumps(record, sort_keys=True)


def arrival(made: Case, to: Destination, sent: Sent) -> Record | None:
    """Return what a destination gets of a record; None if a block drops it."""
    record: dict[str, Any] = dict(sent.record)
    if made.lane != "none" and not to.direct:
        if (made.change == "filters" and not record["n"] % 3) or raises(made, sent):
            return None
        if made.change == "adds":
            record["twice"] = record["n"] * 2
        elif made.change == "drops":
            del record["extra"]
        elif made.change == "changes":
            record["extra"] = record["extra"].upper()
    if to.schema_change == "freeze":
        record.pop("note", None)
    return record


def raises(made: Case, sent: Sent) -> bool:
    """Whether a transformer raises on a record."""
    return made.lane != "none" and made.change == "raises" and sent.record["n"] == RAISES_ON


def check(made: Case, found: Found, *, whole: Collection[tuple[str, str]], exact: bool) -> None:
    """Compare.

    Args:
        whole: (block, stream) of streams all of whose records must have arrived.
        exact: nothing failed, so nothing may have arrived twice.

    Raises:
        FaultError: something is wrong; the message says what.
    """
    for to in made.destinations:
        possible = set()
        for source, stream in made.pairs():
            if to.exported(source, stream):
                arrivals = [(sent, arrival(made, to, sent)) for sent in stream.records]
                possible |= {(to.table(stream), text_of(record)) for _, record in arrivals if record is not None}
                complete = (source.uuid, stream.id) in whole
                _check_stream(to, source, stream, arrivals, found, complete=complete, exact=exact)
        if foreign := found.held[to.uuid].keys() - possible:
            raise FaultError(f"{to.uuid} holds what no tap sent: {sorted(foreign)[:3]}")
    _check_letters(made, found)
    _check_positions(made, found, whole)


def _check_stream(
    to: Destination,
    source: Source,
    stream: Stream,
    arrivals: list[tuple[Sent, Record | None]],
    found: Found,
    *,
    complete: bool,
    exact: bool,
) -> None:
    place, table = f"{to.uuid}, {source.uuid} {stream.id}", to.table(stream)
    mark = next((each.mark for each in source.streams if each.id == stream.parent), stream.mark)
    position = found.saved.get((source.uuid, mark), 0) if mark else 0
    places = (to.uuid,) if to.direct else (to.uuid, to.transformer)
    letters = {text for at in places for text in found.letters.get((source.uuid, at), ())}
    who = f"{source.uuid}/{stream.id}"
    held = [text for (at, text), count in found.held[to.uuid].items() for _ in range(count) if at == table]
    held = [text for text in held if json.loads(text)["who"] == who]
    if to.policy != "pass" and (bad := {text_of(r) for s, r in arrivals if s.broken and r is not None} & set(held)):
        raise FaultError(f"{place}: broken records arrived: {sorted(bad)[:3]}")
    read = found.reads.get((source.uuid, stream.id), 0)
    due: list[str] = []
    for sent, record in arrivals:
        told = record is None or text_of(record)
        if not (complete or sent.number <= position) or sent.reads < read or text_of(sent.record) in letters:
            continue
        if told not in letters and told is not True:
            due.append(str(told))
    if stream.key and not stream.table:
        # Of each key the newest; a newer one than the saved position may have arrived.
        keys = {text: json.loads(text).get("id") for text in map(_text, arrivals) if text}
        order = {text: number for number, text in enumerate(keys)}
        newest = {keys[text]: text for text in due}
        here = {keys[text]: text for text in held}
        lacking = [text for key, text in newest.items() if order.get(here.get(key, ""), -1) < order[text]]
    else:
        lacking = sorted((Counter(due) - Counter(held)).elements())
        replaced = stream.table and to.replaces and stream.sends in (stream.name, stream.id)
        # What was set aside once may be taken by a later run, where the policy is to pass what is not refused.
        taken = Counter(text for text in map(_text, arrivals) if to.policy == "pass" and text in letters)
        if complete and (exact or replaced) and (more := Counter(held) - Counter(due) - taken):
            raise FaultError(f"{place}: rows that should be there once, or not at all: {sorted(more)[:3]}")
    if lacking:
        what = "all should have arrived" if complete else f"{position} is saved"
        raise FaultError(f"{place}: {what}, it lacks {lacking[:3]}")


def _text(arrived: tuple[Sent, Record | None]) -> str:
    return text_of(arrived[1]) if arrived[1] is not None else ""


def _check_letters(made: Case, found: Found) -> None:
    for (block, to), texts in found.letters.items():
        for source, stream in made.pairs():
            for sent in stream.records:
                if source.uuid == block and not sent.broken and not raises(made, sent):
                    records = (sent.record, *(arrival(made, each, sent) or {} for each in made.destinations))
                    if wrong := {text_of(record) for record in records} & set(texts):
                        raise FaultError(f"{block} {stream.id}: dead letters for {to} of good records: {wrong}")


def _check_positions(made: Case, found: Found, whole: Collection[tuple[str, str]]) -> None:
    for source, stream in made.pairs():
        if not stream.mark:
            continue
        saved = found.saved.get((source.uuid, stream.mark), 0)
        reaches = any(to.exported(source, stream) for to in made.destinations)
        if saved > len(stream.records) or (saved and not stream.selected):
            raise FaultError(f"{source.uuid} {stream.id}: {saved} is saved of {len(stream.records)} records")
        # A stream without a bookmark of its own that was stopped holds up all others.
        complete = all((source.uuid, each.id) in whole for each in source.streams)
        if reaches and complete and saved < stream.shown:
            raise FaultError(f"{source.uuid} {stream.id}: the last STATE had {stream.shown}, {saved} is saved")
