"""What decoders and serializers have in common: None stays None, and many values are done one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from streamline.flow.items import Origin


class UndecodableError(ValueError):
    """A value that is not of its format."""


class UnwritableError(ValueError):
    """Data that a format has no form for."""


class MisfitError(UndecodableError, UnwritableError):
    """Data that does not fit its schema."""


class BaseDecoder(ABC):
    """Implements `Decoder`, given what decodes one value."""

    @abstractmethod
    def decode(self, value: bytes, origin: Origin) -> Any:
        """See `Decoder.decode`."""

    def decode_batch(self, values: Sequence[bytes | None], origins: Sequence[Origin]) -> list[Any]:
        """See `Decoder.decode_batch`."""
        decode = self.decode
        return [None if value is None else decode(value, origin) for value, origin in zip(values, origins, strict=True)]


class BaseSerializer(ABC):
    """Implements `Serializer`, given what encodes data that is neither None nor bytes."""

    @abstractmethod
    def encode_data(self, data: Any, topic: str, stream: str, origin: Origin | None) -> bytes:
        """See `Serializer.encode`."""

    def encode_ready(self, value: bytes, topic: str, stream: str) -> bytes:
        """Return a value that is ready, if it may be written."""
        return value

    def encode(self, data: Any, topic: str, stream: str, origin: Origin | None = None) -> bytes | None:
        """See `Serializer.encode`."""
        if data is None:
            return None
        if isinstance(data, bytes):
            return self.encode_ready(data, topic, stream)
        return self.encode_data(data, topic, stream, origin)

    def encode_batch(
        self, data: Sequence[Any], topic: str, stream: str, origins: Sequence[Origin | None] | None = None
    ) -> list[bytes | None]:
        """See `Serializer.encode_batch`."""
        if origins is None:
            return [self.encode(item, topic, stream) for item in data]
        return [self.encode(item, topic, stream, origin) for item, origin in zip(data, origins, strict=True)]
