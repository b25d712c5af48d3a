"""What all Parquet files of outputs have in common."""

from __future__ import annotations

from streamline.outputs.place import Place

ROW_GROUP = 1 << 18
"""Rows at most in a row group: what a reader of few rows has to decode, and what readers share among threads."""

COMPRESSION = "snappy"
"""Every reader of Parquet knows it."""


def shown(place: Place, file: str) -> str | None:
    """How errors name a file."""
    path = place.path(file)
    return str(path) if path is not None else None
