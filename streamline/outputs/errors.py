"""What goes wrong with stored outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamline.errors import StreamlineError

if TYPE_CHECKING:
    from streamline.outputs.storage import Storage


class OutputError(StreamlineError):
    """An output cannot be stored, or what is stored cannot be read."""

    code = "output.invalid"


def damaged(storage: Storage, file: str, error: Exception) -> OutputError:
    """Return the error for a file of an output that its library cannot read."""
    path = storage.path(file)
    return OutputError(
        f"{file} cannot be read: {error}",
        where=None if path is None else str(path),
        hint="run the block again that stored it",
        code="output.damaged",
    )
