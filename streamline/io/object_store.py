"""DataFrames as objects of a store, by way of fsspec: what S3, Google's and Azure's stores have in common."""

from __future__ import annotations

import os
import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from streamline.errors import ConfigError
from streamline.io.base import BaseIO
from streamline.io.config import conceal
from streamline.io.formats import FileFormat, format_of, read_frame, write_frame

if TYPE_CHECKING:
    import pandas as pd


class ObjectStore(BaseIO):
    """A store of buckets (containers) that hold objects by key.

    Args:
        verbose: accepted and not used.
        settings: what the file system is made of.
    """

    title = "object store"

    def __init__(self, verbose: bool = False, **settings: Any) -> None:
        super().__init__(verbose)
        conceal(settings)
        self.settings = settings
        self._file_system: Any = None

    @abstractmethod
    def _connect(self) -> Any:
        """Return the fsspec file system."""

    @property
    def file_system(self) -> Any:
        """Return the store as an fsspec file system, for all that is not offered here."""
        if self._file_system is None:
            self._file_system = self._connect()
        return self._file_system

    def _load(self, bucket: str, key: str, format: str | None, limit: int | None, options: Any) -> pd.DataFrame:
        kind = format_of(key, format)
        path = _path(bucket, key)
        try:
            if kind is FileFormat.HDF5:
                with _local_file(key) as local:
                    self.file_system.get_file(path, str(local))
                    return read_frame(str(local), kind, limit=limit, **options)
            with self.file_system.open(path, "rb") as file:
                return read_frame(file, kind, limit=limit, name=key, **options)
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.title}: there is no object '{key}' in '{bucket}'") from None

    def _export(
        self, data: Any, bucket: str, key: str, format: str | None, options: dict[str, Any], **upload: Any
    ) -> None:
        path = _path(bucket, key)
        if isinstance(data, str | os.PathLike):
            local = Path(data)
            if not local.is_file():
                raise FileNotFoundError(f"there is no file {local} to export")
            self.file_system.put_file(str(local), path, **upload)
            return
        kind = format_of(key, format)
        # Written here first: what fails half-way leaves no half object, and the store gets a length.
        with _local_file(key) as written:
            write_frame(data, str(written), kind, **options)
            self.file_system.put_file(str(written), path, **upload)

    def _exists(self, bucket: str, prefix: str) -> bool:
        path = _path(bucket, prefix)
        if self.file_system.exists(path):
            return True
        parent, _, start = path.rpartition("/")
        try:
            return any(name.rpartition("/")[2].startswith(start) for name in self.file_system.ls(parent, detail=False))
        except FileNotFoundError:
            return False


class BucketStore(ObjectStore):
    """A store whose objects are named by bucket and key."""

    def load(
        self,
        bucket_name: str,
        object_key: str,
        format: FileFormat | str | None = None,
        limit: int | None = None,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Load the rows of an object.

        Args:
            bucket_name: its bucket.
            object_key: its key.
            format: `csv`, `json`, `jsonl`, `parquet`, `excel`, `xml`, `hdf5`; by default what the key's
                extension means.
            limit: no more rows than these.
            kwargs: arguments of pandas' reader.

        Raises:
            FileNotFoundError: there is no such object.
            FormatError: the format is not known, or its package is not installed.
        """
        return self._load(bucket_name, object_key, format, limit, kwargs)

    def export(
        self, data: Any, bucket_name: str, object_key: str, format: FileFormat | str | None = None, **kwargs: Any
    ) -> None:
        """Write an object, whole or not at all.

        Args:
            data: a DataFrame as `FileIO.export` takes it, or the path of a file to upload as it is.
            bucket_name: the bucket; it has to be there.
            object_key: the key.
            format: as for `load`.
            kwargs: arguments of pandas' writer.
        """
        self._export(data, bucket_name, object_key, format, kwargs)

    def exists(self, bucket_name: str, prefix: str) -> bool:
        """Whether there is an object whose key is `prefix`, or begins with it."""
        return self._exists(bucket_name, prefix)


def _path(bucket: str, key: str) -> str:
    if not bucket:
        raise ConfigError(
            "no bucket is named",
            hint="pass the bucket (container) first, then the object's key",
            code="object_store.no_bucket",
        )
    return f"{bucket.rstrip('/')}/{key.lstrip('/')}"


@contextmanager
def _local_file(key: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="streamline-") as folder:
        yield Path(folder) / (PurePosixPath(key).name or "object")
