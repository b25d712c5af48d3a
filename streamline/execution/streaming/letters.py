"""The dead letters of streaming pipelines: how they are made of refused messages, and where they are kept."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, Unpack, cast

import msgspec

from streamline.errors import StreamlineError
from streamline.flow.codecs.message_data import load_data
from streamline.flow.items import BadRecord, DataForm
from streamline.flow.stages.park import KeyLetters, KeyPlace, LetterKeys
from streamline.flow.stages.repartition import first_headers
from streamline.state.store import DeadLetter, LetterForm, LetterKey, Store

if TYPE_CHECKING:
    from streamline.connectors.kafka.dead_letter_topic import Contents, DeadLetterTopic

MAX_ERROR, MAX_TRACE = 4_000, 20_000
"""Characters that are kept of an error and, from its end, of a traceback."""

MAX_COPIES = 10_000
"""Refused messages that are remembered, to tell several outputs of one from the same one read again."""


class Which(TypedDict, total=False):
    """Which letters; see `Store.dead_letters`."""

    block: str | None
    stream: str | None
    ids: Sequence[int] | None
    limit: int | None


class Letters(Protocol):
    """Where the dead letters of a pipeline are kept. Methods block, and may be called from any thread."""

    def keep(self, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        """Keep letters durably. One of the same message and stage is replaced.

        Returns:
            those that the caller has to save in the state database.

        Raises:
            StreamlineError: they are not kept; no position behind their messages may be saved.
        """
        ...

    def find(self, **which: Unpack[Which]) -> list[DeadLetter]:
        """Return open letters, the oldest first."""
        ...

    def discard(self, letters: Sequence[DeadLetter]) -> int:
        """Delete letters that `find` has given; returns how many there were."""
        ...

    def open_keys(self) -> list[LetterKey]:
        """Return the keys of the messages that letters are of."""
        ...

    def note_key_written(self, key: LetterKey) -> None:
        """Remember that a message of a key was delivered: its offset is `key.written`."""
        ...

    def close(self) -> None:
        """Free everything but the state database."""
        ...


class StoredLetters:
    """Letters in the state database."""

    def __init__(self, store: Store, pipeline: str) -> None:
        self._store = store
        self._pipeline = pipeline

    def keep(self, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        """See `Letters.keep`: all of them."""
        return letters

    def find(self, **which: Unpack[Which]) -> list[DeadLetter]:
        """See `Letters.find`."""
        return self._store.dead_letters(self._pipeline, **which)

    def discard(self, letters: Sequence[DeadLetter]) -> int:
        """See `Letters.discard`."""
        return self._store.discard_dead_letters(self._pipeline, [letter.id for letter in letters])

    def open_keys(self) -> list[LetterKey]:
        """See `Letters.open_keys`."""
        return self._store.letter_keys(self._pipeline)

    def note_key_written(self, key: LetterKey) -> None:
        """See `Letters.note_key_written`."""
        self._store.note_key_written(self._pipeline, key)

    def close(self) -> None:
        """See `Letters.close`."""


class TopicLetters:
    """Letters in a Kafka topic. The state database keeps those that it cannot take.

    Args:
        warn: told of letters that the topic did not take.
    """

    def __init__(self, topic: DeadLetterTopic, stored: StoredLetters, warn: Callable[[str], None]) -> None:
        self._topic = topic
        self._stored = stored
        self._warn = warn
        self._contents: Contents | None = None
        """What was read last, less what was discarded since."""

    def keep(self, letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
        """See `Letters.keep`."""
        first = _first_topic_id()
        in_database = [letter for letter in letters if 0 < letter.id < first]
        refused = self._topic.write([letter for letter in letters if not 0 < letter.id < first])
        if refused:
            self.warn_of(len(refused), refused[0][1])
        return [*in_database, *(msgspec.structs.replace(letter, id=0) for letter, _ in refused)]

    def warn_of(self, count: int, reason: str) -> None:
        """Tell of letters that the topic cannot take, and that are kept in the state database."""
        many = "a dead letter" if count == 1 else f"{count} dead letters"
        self._warn(f"{self._topic.topic} cannot take {many} ({reason}); the state database keeps what it cannot")

    def find(self, **which: Unpack[Which]) -> list[DeadLetter]:
        """See `Letters.find`."""
        limit, ids = which.pop("limit", None), which.get("ids")
        wanted = None if ids is None else set(ids)
        there = [
            letter
            for letter in self._read_again().letters.values()
            if which.get("block") in (None, letter.block)
            and which.get("stream") in (None, letter.stream)
            and (wanted is None or letter.id in wanted)
        ]
        letters = sorted([*self._stored.find(**which), *there], key=lambda letter: letter.time)
        return letters if limit is None else letters[-limit:]

    def discard(self, letters: Sequence[DeadLetter]) -> int:
        """See `Letters.discard`."""
        there = [letter for letter in letters if letter.id >= _first_topic_id()]
        if there:
            contents = self._contents or self._read_again()
            self._topic.settle(there, contents)
            for letter in there:
                contents.letters.pop(letter.id, None)
        return len(there) + self._stored.discard([letter for letter in letters if letter.id < _first_topic_id()])

    def rename(self, block: str, name: str) -> int:
        """Give the letters in the topic another name of a block; returns how many there were.

        Raises:
            StreamlineError: the topic cannot be read, or does not take the letters anew.
        """
        contents = self._read_again()
        letters = [
            letter for letter in contents.letters.values() if block in (letter.block, letter.stage, letter.destination)
        ]
        for key, written in contents.keys.items():
            if key[0] == block:
                place = LetterKey(block=name, topic=key[1], partition=key[2], key=key[3], written=written)
                self._topic.note_key_written(place)
        renamed = [
            msgspec.structs.replace(
                letter,
                id=0,
                block=name if letter.block == block else letter.block,
                stage=name if letter.stage == block else letter.stage,
                destination=name if letter.destination == block else letter.destination,
            )
            for letter in letters
        ]
        if renamed and (refused := self._topic.write(renamed)):
            raise StreamlineError(refused[0][1], where=self._topic.topic, code="dead_letter.topic_refuses")
        return self.discard(letters)

    def open_keys(self) -> list[LetterKey]:
        """See `Letters.open_keys`."""
        keys = {_place(key): key for key in self._stored.open_keys()}
        contents = self._read_again()
        for letter in contents.letters.values():
            if letter.topic is None or letter.key is None:
                continue
            key = LetterKey(
                block=letter.block,
                topic=letter.topic,
                partition=letter.partition or 0,
                key=letter.key,
                oldest=letter.offset or 0,
                newest=letter.offset or 0,
            )
            known = keys.setdefault(_place(key), key)
            known.oldest = min(known.oldest, key.oldest)
            known.newest = max(known.newest, key.newest)
            written = contents.keys.get(_place(key))
            known.written = max((each for each in (known.written, written) if each is not None), default=None)
        return list(keys.values())

    def note_key_written(self, key: LetterKey) -> None:
        """See `Letters.note_key_written`."""
        self._topic.note_key_written(key)
        self._stored.note_key_written(key)

    def close(self) -> None:
        """See `Letters.close`."""
        self._topic.close()

    def _read_again(self) -> Contents:
        self._contents = self._topic.read()
        return self._contents


def _first_topic_id() -> int:
    from streamline.connectors.kafka.dead_letter_messages import FIRST_ID

    return FIRST_ID


def _place(key: LetterKey) -> tuple[str, str, int, bytes]:
    return key.block, key.topic, key.partition, key.key


def letter_keys(letters: Letters, source: str, *, park: bool = False) -> LetterKeys:
    """Return what watches the keys of a source's messages; `park`: see `LetterKeys`."""

    def load() -> dict[KeyPlace, KeyLetters]:
        return {
            KeyPlace(key.topic, key.partition, key.key): KeyLetters(
                key.oldest, key.newest, -1 if key.written is None else key.written
            )
            for key in letters.open_keys()
            if key.block == source
        }

    def note(place: KeyPlace, offset: int) -> None:
        letters.note_key_written(LetterKey(block=source, **place._asdict(), written=offset))

    return LetterKeys(load, note, park=park)


# -- letters of refused messages


class LetterMaker:
    """Makes dead letters of refused messages; one for each attempt of a run.

    Args:
        starts_with_value: asked with a source, a stage and a destination whether the stage gets what decoding the
            source's values gives: no transformer lies before it.
        mask: replaces secrets in a text.
    """

    def __init__(
        self,
        pipeline: str,
        run_id: str,
        *,
        starts_with_value: Callable[[str, str, str | None], bool],
        mask: Callable[[str], str],
    ) -> None:
        self._pipeline = pipeline
        self._run_id = run_id
        self._starts_with_value = starts_with_value
        self._mask = mask
        self._copies: dict[tuple[Any, ...], tuple[int, int]] = {}
        self._made = 0

    def letter(self, source: str, bad: BadRecord) -> DeadLetter:
        """Return the letter of a refused message of a source block."""
        record, form = self._data(source, bad)
        letter = DeadLetter(
            pipeline=self._pipeline,
            block=source,
            stream=bad.stream,
            run_id=self._run_id,
            record=record,
            form=form,
            error=self._mask(bad.error)[:MAX_ERROR],
            stage=bad.stage,
            destination=bad.sink,
            output=bad.output,
            copy=self._copy(source, bad),
            inferred=bad.inferred,
            trace=None if bad.trace is None else self._mask(bad.trace)[-MAX_TRACE:],
        )
        origin = bad.origin
        if origin is not None:
            if origin.offset >= 0:
                letter.topic, letter.partition, letter.offset = origin.topic, origin.partition, origin.offset
            letter.key, letter.value = origin.key, origin.value
            letter.headers, letter.message_time = origin.headers, origin.time
            if origin.first is not None:
                letter.headers = [*(origin.headers or ()), *first_headers(origin.first)]
        return letter

    def _data(self, source: str, bad: BadRecord) -> tuple[str, LetterForm]:
        if bad.origin is not None and not bad.output and not bad.inferred:
            is_value = bad.form == "bytes" and bad.record == bad.origin.value
            if is_value or bad.stage == "decode" or self._starts_with_value(source, bad.stage, bad.sink):
                return "", "value"
        if bad.form == "bytes":
            return b64encode(bad.record).decode(), "base64"
        return bad.record.decode("utf-8", "backslashreplace"), bad.form

    def _copy(self, source: str, bad: BadRecord) -> str:
        origin = bad.origin
        if origin is None or origin.offset < 0:
            # Nothing says whether it is the same as one before: keep each.
            self._made += 1
            return f"{self._run_id} {self._made}"
        place = (source, bad.stage, bad.sink, bad.output, origin.topic, origin.partition, origin.offset)
        reading, number = self._copies.pop(place, (id(origin), -1))
        # Another object: it is the same message, read again.
        number = number + 1 if reading == id(origin) else 0
        self._copies[place] = (id(origin), number)
        if len(self._copies) > MAX_COPIES:
            del self._copies[next(iter(self._copies))]
        return str(number) if number else ""


class AttemptLetters:
    """Keeps what an attempt at a run refuses; `positions.Letters`."""

    def __init__(self, maker: LetterMaker, letters: Letters) -> None:
        self._maker = maker
        self._letters = letters
        self._last: list[tuple[BadRecord, DeadLetter]] = []

    def store(self, source: str, records: Sequence[BadRecord]) -> Sequence[DeadLetter]:
        """Make letters of records, and keep them; return those to be saved in the state database.

        Called again with the same records if these were not saved.
        """
        made = {id(record): letter for record, letter in self._last}
        self._last = [(record, made.get(id(record)) or self._maker.letter(source, record)) for record in records]
        return self._letters.keep([letter for _, letter in self._last])

    def close(self) -> None:
        """Free everything."""
        self._letters.close()


def data_of(letter: DeadLetter) -> Any:
    """Return the data of a letter whose form is not `value`.

    Raises:
        ValueError: it cannot be restored.
    """
    if letter.form == "base64":
        return b64decode(letter.record)
    return load_data(letter.record.encode("utf-8", "surrogatepass"), cast(DataForm, letter.form))
