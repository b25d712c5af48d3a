"""Protobuf values: with a schema id and the message's place in its schema in front of them, or without.

Messages become dictionaries by the names that fields have in the schema; integers are integers, bytes are bytes,
enumerations are names, timestamps are aware datetimes. Values of a class (`schema_classpath`) are read as Mage does: by
Protobuf's own JSON mapping, with camel-case names and 64-bit integers as text.
"""

from __future__ import annotations

import base64
import functools
import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from streamline.connectors.kafka.serialization.base import (
    BaseDecoder,
    BaseSerializer,
    UndecodableError,
    UnwritableError,
)
from streamline.connectors.kafka.serialization.framed import HEAD, KnownSchema
from streamline.connectors.kafka.serialization.protobuf_data import fill, to_data
from streamline.errors import ConfigError
from streamline.flow.items import Origin
from streamline.project.extras import need

_COMPILER_SECONDS = 60
_MAIN = "schema.proto"
_LOG_LINE = re.compile(r"WARNING: All log messages|[IWE]\d{4} ")
"""Warnings of the compiler, such as the one about a schema without `syntax`."""


def library(module: str) -> Any:
    """Return a module of the library."""
    return need(f"google.protobuf.{module}", "schema-registry", "`serialization_method: PROTOBUF`", package="protobuf")


class ProtobufFormat:
    """Protobuf with a registry. Implements `Format`.

    Args:
        message: full name of the message to write, where a schema has several; None: its first.
    """

    type = "PROTOBUF"

    def __init__(self, message: str | None = None) -> None:
        self._message = message

    def reader(self, known: KnownSchema) -> Callable[[bytes], Any]:
        """See `Format.reader`."""
        schema = ProtobufSchema(known)

        def read(value: bytes) -> Any:
            indexes, start = read_indexes(value, HEAD)
            return parse(schema.class_at(indexes), value[start:])

        return read

    def writer(self, known: KnownSchema) -> ProtobufWriter:
        """See `Format.writer`."""
        return ProtobufWriter(ProtobufSchema(known), self._message)


class ProtobufWriter:
    """Implements `Writer`. A message that was read as one of the schema's is written as the same one."""

    def __init__(self, schema: ProtobufSchema, message: str | None) -> None:
        self._schema = schema
        self._indexes = schema.indexes_of(message)

    def encode(self, data: Any, like: bytes | None) -> tuple[str, bytes]:
        """See `Writer.encode`."""
        indexes = self._indexes if like is None else read_indexes(like, HEAD)[0]
        kind = self._schema.class_at(indexes)
        return kind.DESCRIPTOR.full_name, write_indexes(indexes) + serialize(kind, data)

    def name_of(self, value: bytes) -> str:
        """See `Writer.name_of`."""
        name: str = self._schema.class_at(read_indexes(value, HEAD)[0]).DESCRIPTOR.full_name
        return name


class ProtobufSchema:
    """The messages of a schema.

    Raises:
        ValueError: it cannot be compiled.
    """

    def __init__(self, known: KnownSchema) -> None:
        files = tuple((name, document.text) for name, document in known.documents.items())
        self._pool = library("descriptor_pool").DescriptorPool()
        *others, main = read_descriptors(known.schema.text, files) or compile_files(known.schema.text, files)
        for file in (*others, main):
            self._pool.Add(file)
        self._file = self._pool.FindFileByName(main.name)
        self._get_class = library("message_factory").GetMessageClass
        self._classes: dict[tuple[int, ...], Any] = {}

    def class_at(self, indexes: tuple[int, ...]) -> Any:
        """Return the class of a message by its place: its number in the file, then in the message that it is in.

        Raises:
            UndecodableError: there is none.
        """
        kind = self._classes.get(indexes)
        if kind is None:
            inner = list(self._file.message_types_by_name.values())
            try:
                for index in indexes:
                    descriptor = inner[index]
                    inner = list(descriptor.nested_types)
            except IndexError:
                raise UndecodableError(f"its schema has no message at {list(indexes)}") from None
            kind = self._classes[indexes] = self._get_class(descriptor)
        return kind

    def indexes_of(self, name: str | None) -> tuple[int, ...]:
        """Return the place of a message; without a name, of the first.

        Raises:
            ValueError: there is none.
        """
        if name is None:
            if not self._file.message_types_by_name:
                raise ValueError("it has no message")
            return (0,)

        def search(messages: Sequence[Any], path: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
            for index, descriptor in enumerate(messages):
                if name in (descriptor.full_name, descriptor.name):
                    yield (*path, index)
                yield from search(descriptor.nested_types, (*path, index))

        place = next(search(list(self._file.message_types_by_name.values()), ()), None)
        if place is None:
            raise ValueError(f"it has no message {name!r}")
        return place


class ProtobufDecoder(BaseDecoder):
    """Reads values of one message, without anything in front."""

    def __init__(self, kind: Any, convert: Callable[[Any], Any] = to_data) -> None:
        self._kind = kind
        self._convert = convert

    def decode(self, value: bytes, origin: Origin) -> Any:
        """See `Decoder.decode`."""
        return parse(self._kind, value, self._convert)


class ProtobufSerializer(BaseSerializer):
    """Writes values of one message, without anything in front."""

    def __init__(self, kind: Any, fill: Callable[[Any, Any], None] = fill) -> None:
        self._kind = kind
        self._fill = fill

    def encode_data(self, data: Any, topic: str, stream: str, origin: Origin | None) -> bytes:
        """See `BaseSerializer.encode_data`."""
        return serialize(self._kind, data, self._fill)


def parse(kind: Any, value: bytes, convert: Callable[[Any], Any] = to_data) -> Any:
    """Return the data of a message's bytes."""
    message = kind()
    try:
        message.ParseFromString(value)
    except Exception as error:  # google.protobuf.message.DecodeError, UnicodeDecodeError
        raise UndecodableError(f"it is no {kind.DESCRIPTOR.full_name}: {error}") from None
    return convert(message)


def serialize(kind: Any, data: Any, fill: Callable[[Any, Any], None] = fill) -> bytes:
    """Return the bytes of a message."""
    if isinstance(data, library("message").Message):
        message = data
    else:
        message = kind()
        fill(message, data)
    try:
        return bytes(message.SerializeToString())
    except Exception as error:  # google.protobuf.message.EncodeError: a required field is missing
        raise UnwritableError(f"it does not fit {kind.DESCRIPTOR.full_name}: {error}") from None


def json_mapping(message: Any) -> Any:
    """Return a message as Protobuf's JSON mapping has it, which Mage gives to transformers."""
    return library("json_format").MessageToDict(message)


def fill_from_json(message: Any, data: Any) -> None:
    """Set a message's fields from what `json_mapping` returns, or from data as `fill` takes it."""
    json_format = library("json_format")
    try:
        json_format.ParseDict(data, message)
    except (json_format.ParseError, AttributeError, TypeError, ValueError):
        message.Clear()
        fill(message, data)


def class_from_path(path: str) -> Any:
    """Return the generated class at `package.module.Class`.

    Raises:
        ConfigError: there is none.
    """
    library("message")
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
        kind.DESCRIPTOR.full_name  # noqa: B018 (a message class has it)
    except Exception as error:  # whatever importing the user's module raises
        raise ConfigError(
            f"`schema_classpath` cannot be imported: {path}: {type(error).__name__}: {error}",
            hint="write it as `package.module.Class`, a class that protoc generated, importable in this environment",
            code="schema.class_missing",
        ) from None
    return kind


def read_indexes(value: bytes, start: int) -> tuple[tuple[int, ...], int]:
    """Return the place of a value's message in its schema, and where the message begins.

    Raises:
        UndecodableError: there is no place.
    """
    count, start = _read_zigzag(value, start)
    if count == 0:
        return (0,), start
    if not 0 < count <= len(value):
        raise UndecodableError(f"it has {count} message indexes")
    indexes = []
    for _ in range(count):
        index, start = _read_zigzag(value, start)
        if index < 0:
            raise UndecodableError(f"it has the message index {index}")
        indexes.append(index)
    return tuple(indexes), start


def write_indexes(indexes: tuple[int, ...]) -> bytes:
    """Return the place of a message in its schema as it stands in front of a value."""
    if indexes == (0,):
        return b"\0"
    return b"".join(map(_zigzag, (len(indexes), *indexes)))


def _read_zigzag(value: bytes, start: int) -> tuple[int, int]:
    number = shift = 0
    while start < len(value) and shift < 64:
        byte = value[start]
        start += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), start
        shift += 7
    raise UndecodableError("it has no message indexes after its schema id")


def _zigzag(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_descriptors(text: str, imports: tuple[tuple[str, str], ...]) -> list[Any]:
    """Return the descriptors of a schema that is one itself, in base64, as Confluent's client for Python registers it.

    Those that it imports come first. Empty if it is text.

    Raises:
        ValueError: something that it imports is not there.
    """
    main = _descriptor(text)
    if main is None:
        return []
    known = dict(imports)
    files: dict[str, Any] = {}

    def add(file: Any) -> None:
        for name in file.dependency:
            if name in files:
                continue
            imported = _descriptor(known[name]) if name in known else _well_known(name)
            if imported is None:
                raise ValueError(f"what it imports is not a descriptor: {name}")
            imported.name = name
            add(imported)
            files[name] = imported

    add(main)
    return [*files.values(), main]


def _descriptor(text: str) -> Any:
    try:
        return library("descriptor_pb2").FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    except Exception:  # binascii.Error, google.protobuf.message.DecodeError: it is text
        return None


def _well_known(name: str) -> Any:
    module = name.removesuffix(".proto").rpartition("/")[2]
    try:
        source = library(f"{module}_pb2").DESCRIPTOR
    except ConfigError:
        raise ValueError(f"what it imports is not there: {name}") from None
    file = library("descriptor_pb2").FileDescriptorProto()
    source.CopyToProto(file)
    return file


@functools.lru_cache(maxsize=64)
def compile_files(text: str, imports: tuple[tuple[str, str], ...] = ()) -> Sequence[Any]:
    """Return the descriptors of a schema's file (`schema.proto`) and of those that it imports, which come first.

    Args:
        imports: names and texts.

    Raises:
        ValueError: the compiler refuses it, with its reason.
    """
    compiler = need("grpc_tools", "schema-registry", "`serialization_method: PROTOBUF`", package="grpcio-tools")
    known = Path(compiler.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory(prefix="streamline-protobuf-") as name:
        folder = Path(name)
        for file, content in (*imports, (_MAIN, text)):
            path = folder / file
            if not path.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"it imports {file!r}, outside of its folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        out = folder / "descriptors"
        # -P: no module is looked for in the folder, whose files a registry names.
        command = [sys.executable, "-P", "-m", "grpc_tools.protoc", f"-I{folder}", f"-I{known}", "--include_imports"]
        try:
            made = subprocess.run(
                [*command, f"--descriptor_set_out={out}", _MAIN],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=_COMPILER_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ValueError(f"the compiler took longer than {_COMPILER_SECONDS} seconds") from None
        if made.returncode:
            lines = [line for line in made.stderr.splitlines() if not _LOG_LINE.match(line)]
            raise ValueError("\n".join(lines).strip() or f"the compiler failed with status {made.returncode}")
        descriptors = library("descriptor_pb2").FileDescriptorSet.FromString(out.read_bytes())
    return tuple(descriptors.file)
