"""The fakes themselves: each says what it is for, and speaks as connectors do where it is not meant to misbehave."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path

import pytest

from tests.support.project import HOSTILE, PYTHON

FAKES = sorted(HOSTILE.glob("*_*.py"))
WELL_BEHAVED = {"tap_rows", "tap_counts", "target_keyed", "mapper_tag", "tap_plays", "_singer", "_keyed", "_text"}


@pytest.mark.parametrize("file", FAKES, ids=lambda file: file.stem)
def test_it_says_what_it_does_who_does_so_and_what_is_wanted(file: Path) -> None:
    text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""

    assert text
    if file.stem not in WELL_BEHAVED:
        assert "\nWho: " in text
        assert "\nWanted: " in text


def test_they_answer_help_and_refuse_what_they_do_not_know(tmp_path: Path) -> None:
    started = {
        (file.stem, option): subprocess.Popen(
            [*PYTHON, str(file), option], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True
        )
        for file in FAKES[::6]
        if file.stem[0] != "_"
        for option in ("--help", "--about")
    }
    for (name, option), process in started.items():
        out, err = process.communicate(timeout=20)
        assert process.returncode == (0 if option == "--help" else 2), f"{name} {option}: {err}"
        assert ("--config" in out) == (option == "--help")


def test_a_tap_and_a_target_in_a_shell_pipe(tmp_path: Path) -> None:
    (tmp_path / "tap.json").write_text(json.dumps({"rows": 250, "select_all": True}))
    (tmp_path / "target.json").write_text(json.dumps({"path": "out.db"}))
    argv = [*PYTHON, str(HOSTILE / "tap_counts.py"), "--config", "tap.json"]
    sent = subprocess.run(argv, capture_output=True, cwd=tmp_path, check=True).stdout
    argv = [*PYTHON, str(HOSTILE / "target_keyed.py"), "--config", "target.json"]

    output = subprocess.run(argv, input=sent, capture_output=True, cwd=tmp_path, check=True).stdout

    assert json.loads(output.splitlines()[-1])["bookmarks"]["numbers"]["replication_key_value"] == 250
