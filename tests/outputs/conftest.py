"""A project's folder for outputs, and what goes through it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamline.outputs.store import Output, open_output, project_key, write_output


class Shelf:
    """One block's output of a project in a temporary folder."""

    def __init__(self, root: Path) -> None:
        self.work_dir = root / ".streamline"
        self.pipeline = self.work_dir / "data" / "p"
        self.folder = self.pipeline / "block"

    def key(self) -> bytes:
        return project_key(self.work_dir)

    def write(self, value: Any, *, durable: bool = False) -> Output:
        """Store `value`; its output."""
        write_output(self.folder, value, run_id="r1", secrets_key=self.key, durable=durable)
        return open_output(self.folder, self.key)

    def names(self) -> list[str]:
        """The files of the output."""
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@pytest.fixture
def back(shelf: Shelf) -> Callable[[Any], Any]:
    """What a value comes back as."""
    return lambda value: shelf.write(value).value()
