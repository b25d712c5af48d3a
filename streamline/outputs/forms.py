"""What a block returned, taken apart: nothing, one value, a tuple's values, or an iterator's chunks."""

from __future__ import annotations

import datetime as dt
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from io import IOBase
from typing import Any

from streamline.outputs.errors import OutputError
from streamline.outputs.manifest import Form, Manifest, StoredValue
from streamline.outputs.storage import Storage
from streamline.outputs.values import write_value

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


def write_values(storage: Storage, value: Any, run_id: str) -> Manifest:
    """Write what a block returned; the manifest that is to stand beside it, which is not written.

    Raises:
        OutputError: a value that cannot be stored, or a disk that is full or failing.
        Exception: whatever an iterator raises, unchanged.
    """
    outputs: list[StoredValue] = []
    form: Form = "single"
    if value is None:
        form = "none"
    elif _is_tuple(value):
        form = "tuple"
        for number, element in enumerate(value):
            outputs.append(_write(storage, number, element))
    elif _is_iterator(value):
        form = "chunks"
        # The user's code runs between the chunks: what it raises is its own, and nothing may hold the last chunk while
        # it makes the next (`enumerate` would).
        for chunk in value:
            outputs.append(_write(storage, len(outputs), chunk))
            del chunk
    else:
        outputs.append(_write(storage, 0, value))
    written_at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    return Manifest(run_id=run_id, form=form, outputs=outputs, written_at=written_at)


def _write(storage: Storage, number: int, value: Any) -> StoredValue:
    with disk_errors():
        return write_value(storage, f"output_{number}", value)


@contextmanager
def disk_errors(*, every: bool = False) -> Iterator[None]:
    """Say in words what the disk refuses; with `every`, whatever the operating system refuses."""
    try:
        yield
    except OSError as error:
        if every or error.errno in _DISK:
            raise OutputError(
                f"the output cannot be stored: {error.strerror or error}", where=_name(error), code="output.not_written"
            ) from error
        raise


def _name(error: OSError) -> str | None:
    return str(error.filename) if error.filename else None


def _is_tuple(value: Any) -> bool:
    # Named tuples, too; but a time.struct_time is one value.
    return type(value) is tuple or (isinstance(value, tuple) and hasattr(type(value), "_fields"))


def _is_iterator(value: Any) -> bool:
    if not hasattr(type(value), "__next__") or not hasattr(type(value), "__iter__"):
        return False
    # An open file is no data; a RecordBatchReader is one table.
    return not isinstance(value, IOBase) and type(value).__module__.partition(".")[0] != "pyarrow"
