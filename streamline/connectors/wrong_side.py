"""The error for a connector that is used on a side that it does not have."""

from __future__ import annotations

from streamline.connectors.stream_connector import Side, Where
from streamline.errors import ConfigError


def wrong_side(name: str, side: Side, where: Where) -> ConfigError:
    """Return the error for a block whose connector is no source, or no destination."""
    other = "destination" if side == "source" else "source"
    return ConfigError(
        f"{name} is no {side}; it is a {other} only",
        where=where("connector_type"),
        hint="see docs/streaming.md for what is",
        code="connector.wrong_side",
    )
