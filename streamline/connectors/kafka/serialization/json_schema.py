"""JSON values that are checked against a JSON Schema. No document that a schema refers to is fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from streamline.connectors.kafka.serialization.base import BaseDecoder, BaseSerializer, MisfitError
from streamline.connectors.kafka.serialization.json_text import JsonDecoder, decode_json, encode_json
from streamline.errors import ConfigError
from streamline.flow.codecs import jsontext
from streamline.flow.items import Origin

if TYPE_CHECKING:
    import jsonschema_rs

_LONGEST_ERROR = 400


class JsonSchema:
    """A schema that values are checked against.

    Args:
        schema: of any draft, the one that it names or the newest.
        documents: what it may refer to, by address.

    Raises:
        ValueError: it is not valid, or refers to another document.
    """

    def __init__(self, schema: Any, documents: Mapping[str, Any] | None = None) -> None:
        import jsonschema_rs

        known = documents or {}

        def retrieve(address: str) -> Any:
            name = address.removeprefix("json-schema:///")
            return known[name] if name in known else _refuse(address)

        try:
            self._validator: jsonschema_rs.Validator = jsonschema_rs.validator_for(schema, retriever=retrieve)
        except jsonschema_rs.ValidationError as error:
            raise ValueError(error.message) from None

    def check(self, data: Any) -> None:
        """Check JSON data.

        Raises:
            MisfitError: it does not fit; the first reason.
        """
        for error in self._validator.iter_errors(data):
            place = ".".join(map(str, error.instance_path))
            text = f"{place}: {error.message}" if place else error.message
            raise MisfitError("it does not fit its schema: " + text[:_LONGEST_ERROR])

    def check_all(self, data: Sequence[Any]) -> None:
        """Check many; None passes.

        Raises:
            MisfitError: one of them does not fit.
        """
        if not all(map(self._validator.is_valid, [item for item in data if item is not None])):
            raise MisfitError("a value does not fit its schema")

    def checked_text(self, data: Any) -> bytes:
        """Return the JSON text of data that fits.

        Raises:
            ValueError: it does not fit, or has no text.
        """
        text = encode_json(data)
        # What is checked is what is written: a date is its text.
        self.check(decode_json(text))
        return text


def schema_file(path: Path, make: Callable[[bytes], Any]) -> Any:
    """Return what `make` makes of a schema's file.

    Raises:
        ConfigError: the file cannot be read, or `make` raised a ValueError.
    """
    try:
        return make(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", where=str(path), hint="check its permissions", code="file.not_readable"
        ) from None
    except ValueError as error:
        raise ConfigError(
            f"it is not a schema that can be used: {error}",
            where=str(path),
            hint="correct the file",
            code="schema.invalid",
        ) from None


def json_schema_file(path: Path) -> JsonSchema:
    """Return the schema in a file.

    Raises:
        ConfigError: there is none that is valid.
    """
    schema: JsonSchema = schema_file(path, lambda text: JsonSchema(jsontext.loads(text)))
    return schema


class CheckedJsonDecoder(BaseDecoder):
    """Reads JSON that fits a schema."""

    def __init__(self, schema: JsonSchema) -> None:
        self._json = JsonDecoder()
        self._schema = schema

    def decode(self, value: bytes, origin: Origin) -> Any:
        """See `Decoder.decode`."""
        data = decode_json(value)
        self._schema.check(data)
        return data

    def decode_batch(self, values: Sequence[bytes | None], origins: Sequence[Origin]) -> list[Any]:
        """See `Decoder.decode_batch`."""
        data = self._json.decode_batch(values, origins)
        self._schema.check_all(data)
        return data


class CheckedJsonSerializer(BaseSerializer):
    """Writes JSON that fits a schema, also of values that are ready."""

    def __init__(self, schema: JsonSchema) -> None:
        self._schema = schema

    def encode_data(self, data: Any, topic: str, stream: str, origin: Origin | None) -> bytes:
        """See `BaseSerializer.encode_data`."""
        return self._schema.checked_text(data)

    def encode_ready(self, value: bytes, topic: str, stream: str) -> bytes:
        """See `BaseSerializer.encode_ready`."""
        self._schema.check(decode_json(value))
        return value


def _refuse(address: str) -> NoReturn:
    raise ValueError(f"the document that it refers to is not there: {address}")
