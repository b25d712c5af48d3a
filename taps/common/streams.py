"""One stream that cannot be read does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kit.connector import ConnectorError, log

from .catalog import Stream


def read_each(streams: Iterable[Stream], read: Callable[[Stream], None], failed: Sequence[ConnectorError] = ()) -> None:
    """Call `read` with every stream; set one aside that fails.

    Args:
        streams: those to read.
        read: sends a stream's messages.
        failed: errors of streams that were set aside before.

    Raises:
        ConnectorError: at the end, a stream failed.
    """
    errors = list(failed)
    for stream in streams:
        try:
            read(stream)
        except ConnectorError as error:
            log("WARNING", f"stream {stream.name!r} failed; the other streams are read")
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ConnectorError(f"{len(errors)} streams failed: {'; '.join(map(str, errors))}")
