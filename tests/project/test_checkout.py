"""The ids of checkouts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from streamline.project.checkout import checkout_id


def test_a_checkout_keeps_its_id_and_a_copy_has_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def id_of(name: str) -> str:
        return checkout_id(tmp_path / name, tmp_path / name / ".streamline")

    (tmp_path / "a" / ".streamline").mkdir(parents=True)
    first = id_of("a")
    assert id_of("a") == first
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert id_of("b") != first
    monkeypatch.setattr("socket.gethostname", lambda: "another host")
    assert id_of("a") != first
    monkeypatch.undo()
    (tmp_path / "a" / ".streamline" / "checkout-id").unlink()
    assert id_of("a") != first
