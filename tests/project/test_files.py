"""Files that are replaced whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from streamline.errors import DiskFull
from streamline.project.files import replace_file


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "metadata.yaml"
    replace_file(path, "name: old\n")
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(DiskFull) as caught:
        replace_file(path, "name: new\n", durable=True)

    assert caught.value.where == str(path)
    assert path.read_text() == "name: old\n"
    assert list(tmp_path.iterdir()) == [path]
