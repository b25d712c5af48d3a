"""What the README tells a newcomer to type is typed here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb

from streamline.demo import shop

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block_after(heading: str) -> list[str]:
    """The lines of the first code block under a heading, without comments."""
    text = re.search(rf"^## {heading}$.*?^```bash\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert text is not None, heading
    return [line.partition("#")[0].strip() for line in text.group(1).splitlines()]


def test_a_pipeline_of_your_own(tmp_path: Path) -> None:
    lines = block_after("A pipeline of your own")
    assert len(lines) == 5
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "streamline"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m streamline "$@"\n')
    program.chmod(0o755)
    shop.create(tmp_path / "shop.db")
    # The database is the reader's own; it has to be there before the last line.
    script = "\n".join([*lines[:-1], f'mv "{tmp_path}/shop.db" .', lines[-1]])
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{program.parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with duckdb.connect(str(tmp_path / "shop" / "warehouse.duckdb"), read_only=True) as warehouse:
        assert warehouse.execute("select count(*) from orders").fetchone() == (5000,)


def test_the_test_command_is_the_one_that_continuous_integration_runs() -> None:
    (line,) = block_after("Work on it")
    assert line.startswith("python3 -m venv .venv && ")
    assert "README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_pages_that_the_readme_names_are_there() -> None:
    for page in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / page).exists(), page
