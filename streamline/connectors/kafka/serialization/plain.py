"""Values without a structure: bytes as they are, and text in UTF-8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamline.connectors.kafka.serialization.base import (
    BaseDecoder,
    BaseSerializer,
    UndecodableError,
    UnwritableError,
)
from streamline.flow.items import Origin


class BytesDecoder(BaseDecoder):
    """Gives values as they are."""

    def decode(self, value: bytes, origin: Origin) -> bytes:
        """See `Decoder.decode`."""
        return value

    def decode_batch(self, values: Sequence[bytes | None], origins: Sequence[Origin]) -> list[Any]:
        """See `Decoder.decode_batch`."""
        return list(values)


class TextDecoder(BaseDecoder):
    """Gives values as text."""

    def decode(self, value: bytes, origin: Origin) -> str:
        """See `Decoder.decode`."""
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise UndecodableError(f"it is not UTF-8 text ({error.reason} at byte {error.start})") from None


class BytesSerializer(BaseSerializer):
    """Takes bytes and text."""

    def encode_data(self, data: Any, topic: str, stream: str, origin: Origin | None) -> bytes:
        """See `BaseSerializer.encode_data`."""
        if isinstance(data, bytearray | memoryview):
            return bytes(data)
        return TextSerializer.text(data, "bytes or text")


class TextSerializer(BaseSerializer):
    """Takes text."""

    def encode_data(self, data: Any, topic: str, stream: str, origin: Origin | None) -> bytes:
        """See `BaseSerializer.encode_data`."""
        return self.text(data, "text")

    @staticmethod
    def text(data: Any, needed: str) -> bytes:
        """Return text in UTF-8.

        Raises:
            UnwritableError: it is no text, or has a lone surrogate.
        """
        if not isinstance(data, str):
            raise UnwritableError(f"the value must be {needed}, not {type(data).__name__}")
        try:
            return data.encode()
        except UnicodeEncodeError as error:
            raise UnwritableError(f"the text cannot be written in UTF-8 ({error.reason} at {error.start})") from None
