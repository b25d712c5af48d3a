"""Values with a schema id in front: a zero byte, the id in four bytes (big-endian), then the data.

Each value is decoded by the schema that it was written with. A sink takes the schema that it is configured with;
without one, that of the message which it writes, else the newest of its own subject, else the newest that the source
has read of the stream: the first that fits. So a change of the source's schema is registered downstream when its first
message gets there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from streamline.connectors.kafka.serde_settings import Serde
from streamline.connectors.kafka.serialization.base import (
    BaseDecoder,
    BaseSerializer,
    UndecodableError,
    UnwritableError,
)
from streamline.connectors.kafka.serialization.registry import RegistryRefusal, Schema, SchemaRegistry
from streamline.flow.items import Origin

HEAD = 5
LATEST_SECONDS = 30.0
"""A subject is asked so often for its newest version."""
MISFIT_SECONDS = 1.0
"""The same, while data fits none that is known."""


class KnownSchema(msgspec.Struct, frozen=True):
    """A schema with all that it refers to, by the names that the references use; what others need comes first."""

    schema: Schema
    documents: Mapping[str, Schema] = {}


class Writer(Protocol):
    """Writes data of one schema."""

    def encode(self, data: Any, like: bytes | None) -> tuple[str, bytes]:
        """Return the full name of the record, and what follows the id.

        Args:
            like: the value that the message was read as, of the same schema.

        Raises:
            ValueError: the data does not fit the schema.
        """
        ...

    def name_of(self, value: bytes) -> str:
        """Return the full name of the record in a value."""
        ...


class Format(Protocol):
    """A kind of schema. Methods raise ValueError for a schema that cannot be used."""

    type: str
    """As the registry calls it."""

    def reader(self, known: KnownSchema) -> Callable[[bytes], Any]:
        """Return what decodes whole values, the id included; it raises ValueError."""
        ...

    def writer(self, known: KnownSchema) -> Writer:
        """Return what writes data of the schema."""
        ...


def schema_id(value: bytes) -> int:
    """Return the id in front of a value.

    Raises:
        UndecodableError: there is none.
    """
    if len(value) < HEAD or value[0] != 0:
        raise UndecodableError("there is no schema id in front of it (a zero byte and four bytes)")
    return int.from_bytes(value[1:HEAD])


def head(number: int) -> bytes:
    """Return what stands in front of a value with a schema id."""
    return b"\0" + number.to_bytes(4)


def load(registry: SchemaRegistry, schema: Schema) -> KnownSchema:
    """Return a schema with all that it refers to."""
    documents: dict[str, Schema] = {}

    def add(schema: Schema) -> None:
        for reference in schema.references:
            if reference.name not in documents:
                document = registry.version(reference.subject, reference.version)
                add(document)
                documents[reference.name] = document

    add(schema)
    return KnownSchema(schema, documents)


def register(registry: SchemaRegistry, subject: str, known: KnownSchema, *, new: bool) -> int:
    """Return the id of a schema in a subject; what it refers to is put under the subjects that it names.

    Args:
        new: what the registry does not have is added.
    """
    references = []
    for reference in known.schema.references:
        document = KnownSchema(known.documents[reference.name], known.documents)
        register(registry, reference.subject, document, new=new)
        version = registry.version_of(reference.subject, document.schema)
        references.append(msgspec.structs.replace(reference, version=version))
    return registry.register(subject, msgspec.structs.replace(known.schema, references=tuple(references)), new=new)


class SeenSchemas:
    """The schemas that sources of this process have read, by stream and id, in the order in which they came."""

    def __init__(self) -> None:
        self._schemas: dict[tuple[bool, str], dict[int, KnownSchema]] = {}

    def add(self, stream: str, for_key: bool, number: int, known: KnownSchema) -> None:
        """Note a schema of a stream."""
        schemas = self._schemas.setdefault((for_key, stream), {})
        schemas.pop(number, None)  # of another registry
        schemas[number] = known

    def note(self, stream: str, known: KnownSchema) -> None:
        """Note the schema of a stream's values that no registry has given an id yet."""
        schemas = self._schemas.setdefault((False, stream), {})
        number = next((number for number, other in schemas.items() if other == known), -1 - len(schemas))
        self.add(stream, False, number, known)

    def of(self, stream: str, for_key: bool) -> Mapping[int, KnownSchema]:
        """Return the schemas of a stream by id."""
        return self._schemas.get((for_key, stream), {})


SEEN = SeenSchemas()
"""How a sink learns of the schemas of its sources, whose registry may be another one."""


class FramedDecoder(BaseDecoder):
    """Decodes values by the schema whose id stands in front of them."""

    def __init__(self, form: Format, registry: SchemaRegistry, *, for_key: bool, seen: SeenSchemas = SEEN) -> None:
        self._form = form
        self._registry = registry
        self._for_key = for_key
        self._seen = seen
        self._readers: dict[tuple[str, int], Callable[[bytes], Any]] = {}

    def decode(self, value: bytes, origin: Origin) -> Any:
        """See `Decoder.decode`."""
        number = schema_id(value)
        reader = self._readers.get((origin.topic, number))
        if reader is None:
            reader = self._readers[origin.topic, number] = self._reader(origin.topic, number)
        return reader(value)

    def _reader(self, topic: str, number: int) -> Callable[[bytes], Any]:
        schema = self._registry.schema(number)
        if schema.type != self._form.type:
            raise UndecodableError(f"its schema {number} is {schema.type}, not {self._form.type}")
        known = load(self._registry, schema)
        try:
            reader = self._form.reader(known)
        except ValueError as error:
            raise UndecodableError(f"its schema {number} cannot be used: {error}") from None
        self._seen.add(topic, self._for_key, number, known)
        return reader


class FramedSerializer(BaseSerializer):
    """Encodes values by a schema, and puts its id in front of them.

    Args:
        schema: the one that it is configured with.
    """

    def __init__(
        self,
        form: Format,
        registry: SchemaRegistry,
        serde: Serde,
        schema: KnownSchema | None = None,
        *,
        seen: SeenSchemas = SEEN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._form = form
        self._registry = registry
        self._serde = serde
        self._schema = schema
        self._seen = seen
        self._clock = clock
        self._writers: dict[Schema, Writer] = {}
        self._heads: dict[tuple[str, str, Schema], bytes] = {}
        self._ready: dict[tuple[str, bytes], bytes] = {}
        self._latest: dict[str, tuple[float, KnownSchema | None]] = {}

    def encode_data(self, data: Any, topic: str, stream: str, origin: Origin | None) -> bytes:
        """See `BaseSerializer.encode_data`."""
        reason: str | None = None
        for patience in (LATEST_SECONDS, MISFIT_SECONDS):
            for known, like in self._candidates(topic, stream, origin, patience):
                try:
                    name, payload = self._writer(known).encode(data, like)
                except ValueError as error:
                    reason = reason or str(error)
                    continue
                return self._head(topic, name, known) + payload
            if self._schema is not None or self._serde.strategy != "topic":
                break
            if self._clock() - self._latest[self._subject(topic, "")][0] < MISFIT_SECONDS:
                break  # it was asked just now
        if reason is None:
            raise RegistryRefusal(
                f"there is no schema for what is written to the topic {topic!r}",
                hint="name its file: `schema` in `serde_config`, or register one",
                code="registry.schema_missing",
            )
        raise UnwritableError(reason)

    def encode_ready(self, value: bytes, topic: str, stream: str) -> bytes:
        """Return a value of this registry, after its schema is in the topic's subject."""
        if not value:
            return value  # as it was read: it names no schema
        key = (topic, value[:HEAD])
        new_head = self._ready.get(key)
        if new_head is None:
            number = schema_id(value)
            schema = self._registry.schema(number)
            if schema.type != self._form.type:
                raise UndecodableError(f"its schema {number} is {schema.type}, not {self._form.type}")
            known = load(self._registry, schema)
            new_head = self._head(topic, self._writer(known).name_of(value), known)
            self._ready[key] = new_head
        return value if value.startswith(new_head) else new_head + value[HEAD:]

    def _candidates(
        self, topic: str, stream: str, origin: Origin | None, patience: float
    ) -> Iterator[tuple[KnownSchema, bytes | None]]:
        """Iterate over the schemas to try, each with the value that was read of it, if there is one.

        Args:
            patience: seconds that an answer of the registry is good for.
        """
        if self._schema is not None:
            yield self._schema, None
            return
        seen = self._seen.of(stream, self._serde.for_key)
        read = None if origin is None else origin.key if self._serde.for_key else origin.value
        own = seen.get(int.from_bytes(read[1:HEAD])) if read is not None else None
        if own is not None and own.schema.type == self._form.type:
            yield own, read
        if self._serde.strategy == "topic":
            newest = self._newest(self._subject(topic, ""), patience)
            if newest is not None:
                yield newest, None
        for known in reversed(list(seen.values())):
            if known is not own and known.schema.type == self._form.type:
                yield known, None

    def _newest(self, subject: str, patience: float) -> KnownSchema | None:
        asked, known = self._latest.get(subject, (-math.inf, None))
        if self._clock() - asked >= patience:
            newest = self._registry.latest(subject)
            known = None if newest is None else load(self._registry, newest[1])
            self._latest[subject] = (self._clock(), known)
        return known

    def _writer(self, known: KnownSchema) -> Writer:
        writer = self._writers.get(known.schema)
        if writer is None:
            writer = self._writers[known.schema] = self._form.writer(known)
        return writer

    def _head(self, topic: str, name: str, known: KnownSchema) -> bytes:
        key = (topic, name, known.schema)
        made = self._heads.get(key)
        if made is None:
            subject = self._subject(topic, name)
            made = self._heads[key] = head(register(self._registry, subject, known, new=self._serde.register))
        return made

    def _subject(self, topic: str, name: str) -> str:
        strategy = self._serde.strategy
        if strategy == "topic":
            return f"{topic}-{'key' if self._serde.for_key else 'value'}"
        return name if strategy == "record" else f"{topic}-{name}"
