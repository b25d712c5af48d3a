"""One stream that cannot be read does not stop the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kit.connector import ConnectorError, log

from .catalog import Stream, selected_streams


def read_selected(catalog: Any, read: Callable[[Stream], None]) -> None:
    """Call `read` with every selected stream of a catalog; set one aside that fails.

    Args:
        read: sends a stream's messages.

    Raises:
        ConnectorError: at the end, a stream failed.
    """
    streams, errors = selected_streams(catalog)
    for stream in streams:
        try:
            read(stream)
        except ConnectorError as error:
            log("WARNING", f"stream {stream.name!r} failed; the other streams are read")
            errors.append(error)
    if len(errors) == 1:
        # After others were read, it is no error in the settings alone.
        raise errors[0] if not streams else ConnectorError(str(errors[0])) from errors[0]
    if errors:
        raise ConnectorError(f"{len(errors)} streams failed: {'; '.join(map(str, errors))}")
