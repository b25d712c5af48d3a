"""Files of the machine that runs the block."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from streamline.io.base import BaseIO, FileFormat
from streamline.io.formats import format_of, read_frame, write_frame

Paths = str | os.PathLike[str]

__all__ = ["FileFormat", "FileIO"]


class FileIO(BaseIO):
    """Loads and exports CSV, JSON, JSON Lines, Parquet, Excel, XML and HDF5 files.

    Relative paths start at the working directory, which in a block is the project.
    """

    def load(
        self,
        filepath: Paths | Iterable[Paths] | None = None,
        format: FileFormat | str | None = None,
        file_directories: Iterable[Paths] | None = None,
        *,
        filepaths: Iterable[Paths] | None = None,
        limit: int | None = None,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Load the rows of a file, or of several one after another (under a new index).

        Args:
            filepath: a file, a URL that pandas can open, or several.
            format: `csv`, `json`, `jsonl`, `parquet`, `excel`, `xml`, `hdf5`; by default what each file's extension
                means.
            file_directories: every file in these folders and below, in the order of their names.
            filepaths: several files.
            limit: no more rows than these, in all.
            kwargs: arguments of pandas' reader, such as `sep=';'`.

        Raises:
            FormatError: the format is not known, or its package is not installed.
            FileNotFoundError: no such file; in `file_directories`, no file at all.
        """
        several = filepaths is not None or file_directories is not None
        paths = [str(os.fspath(path)) for path in filepaths or ()]
        if isinstance(filepath, str | os.PathLike):
            paths.insert(0, str(os.fspath(filepath)))
        elif filepath is not None:
            several = True
            paths = [*(str(os.fspath(path)) for path in filepath), *paths]
        for folder in file_directories or ():
            paths += _files_below(Path(folder))
        if not paths:
            folders = [str(folder) for folder in file_directories or ()]
            raise FileNotFoundError(f"no files in {', '.join(folders)}" if folders else "no file is named to load")
        if not several:
            return read_frame(paths[0], format_of(paths[0], format), limit=limit, **kwargs)

        frames: list[pd.DataFrame] = []
        left = limit
        for path in paths:
            if left is not None and left <= 0 and frames:
                break
            frames.append(read_frame(path, format_of(path, format), limit=left, **kwargs))
            left = left - len(frames[-1]) if left is not None else None
        return pd.concat(frames, axis=0, ignore_index=True)

    def export(
        self,
        df: Any,
        filepath: Paths,
        format: FileFormat | str | None = None,
        **kwargs: Any,
    ) -> None:
        """Write a file; a reader sees the old file or the new one, never a part of it.

        A CSV, Excel or XML file gets the index only if it has a name; `index=` decides otherwise.

        Args:
            df: a pandas or Polars DataFrame, an Arrow table, a list of dicts.
            filepath: the file; its folder has to be there.
            format: as for `load`.
            kwargs: arguments of pandas' writer, such as `orient='records'`.

        Raises:
            FormatError: the format is not known, or its package is not installed.
        """
        path = str(os.fspath(filepath))
        kind = format_of(path, format)
        # HDF5 files hold several tables, and `mode='a'` adds to a CSV file: these are changed in place.
        if kind is FileFormat.HDF5 or kwargs.get("mode", "w") != "w" or "://" in path or _special(path):
            write_frame(df, path, kind, **kwargs)
            return
        with _replaced(Path(path)) as new:
            write_frame(df, str(new), kind, **kwargs)

    def exists(self, filepath: Paths) -> bool:
        """Return whether there is such a file or folder."""
        return Path(filepath).exists()


def _files_below(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


def _special(path: str) -> bool:
    """Return whether it is a pipe, a terminal or a folder, which another file cannot take the place of."""
    return Path(path).exists() and not Path(path).is_file()


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """Open a file beside `path`, with its extensions, that takes its place if all goes well."""
    import secrets

    target = Path(os.path.realpath(path))  # a link stays a link
    new = target.with_name(f".{secrets.token_hex(4)}.{target.name}")
    try:
        yield new
        # Partitioned Parquet is a folder; it can take the place of nothing, and of no file.
        if target.is_file():
            new.chmod(target.stat().st_mode & 0o7777)
        new.replace(target)
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
