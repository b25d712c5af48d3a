"""Write stored outputs, and read them back as they were written. Other rooms import from here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamline.outputs import manifest as manifests
from streamline.outputs.errors import OutputError
from streamline.outputs.folders import clear_leftovers, new_sibling, publish, remove, sync_tree, write_file
from streamline.outputs.key import project_key
from streamline.outputs.manifest import Manifest, StoredValue, read_manifest
from streamline.outputs.output import Output, open_output, pack, unpack
from streamline.outputs.storage import FolderStorage
from streamline.outputs.values import ParquetFile, disk_errors, write_values

__all__ = [
    "Manifest",
    "Output",
    "OutputError",
    "ParquetFile",
    "StoredValue",
    "clear_leftovers",
    "open_output",
    "pack",
    "project_key",
    "read_manifest",
    "sync_tree",
    "unpack",
    "write_output",
]


def write_output(
    folder: Path, value: Any, *, run_id: str, secrets_key: Callable[[], bytes], durable: bool = True
) -> Manifest:
    """Store what a block returned in `folder`, in the place of what was there. Readers see all of it or nothing.

    Args:
        folder: where; made if it is not there, with its parents.
        value: None, a tuple (stored one by one), a generator or other iterator (consumed; each chunk is stored
            before the next is asked for), a `ParquetFile`, or any other value.
        secrets_key: gives the project's key; called only if something has to be pickled.
        durable: when this returns, the output would survive a power cut. Without it (see `sync_tree`), a small output
            without tables is a single file in the place of the folder.

    Raises:
        OutputError: a value that cannot be stored, or a disk that is full or failing.
        Exception: whatever an iterator raises, unchanged. Nothing is left behind then.
    """
    temporary = new_sibling(folder)
    storage = FolderStorage(temporary, secrets_key, durable=durable)
    try:
        manifest = write_values(storage, value, run_id)
        with disk_errors(storage, every=True):
            data = manifests.encode(manifest)
            if storage.made or durable:
                storage.put(manifests.NAME, data)
            else:
                # Of a thousand children each small output is one file: nothing costs a file system more than names.
                write_file(temporary, data)
            publish(temporary, folder, durable=durable)
    except BaseException:
        remove(temporary)
        raise
    return manifest
