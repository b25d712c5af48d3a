"""What the README tells a newcomer to type is typed here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block_after(heading: str) -> list[str]:
    """The lines of the first code block under a heading, without comments."""
    text = re.search(rf"^## {heading}$.*?^```bash\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert text is not None, heading
    return [line.partition("#")[0].strip() for line in text.group(1).splitlines()]


def typed(lines: list[str], folder: Path) -> str:
    """What a shell prints that is given these lines in `folder`."""
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "streamline"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m streamline "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euc", "\n".join(lines)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{program.parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def file_in_readme(path: str) -> str:
    """The text of the code block that begins with the name of a file."""
    text = re.search(rf"^```\w+\n((?:#|--) {re.escape(path)}\n.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert text is not None, path
    return text.group(1)


def test_a_batch_pipeline_of_your_own(tmp_path: Path) -> None:
    lines = block_after("A batch pipeline of your own")
    assert len(lines) == 6
    assert "completed: 3 completed" in typed(lines, tmp_path)
    for path in ("data_loaders/load_sales.py", "transformers/totals.sql"):
        (tmp_path / "shop" / path).write_text(file_in_readme(path))
    shown = typed(["cd shop", "streamline run sales --test", "streamline run sales --block-uuid totals"], tmp_path)
    assert "1 test passed" in shown
    stored = tmp_path / "shop" / ".streamline" / "data" / "sales" / "totals" / "output_0.parquet"
    assert sorted(duckdb.sql(f"select * from '{stored}'").fetchall()) == [("a", 12.75), ("b", 20.0)]


def test_an_integration_pipeline_of_your_own(tmp_path: Path) -> None:
    lines = block_after("An integration pipeline of your own")
    assert len(lines) == 7
    typed(lines, tmp_path)
    with duckdb.connect(str(tmp_path / "shop" / "warehouse.duckdb"), read_only=True) as warehouse:
        assert warehouse.execute("select count(*) from orders").fetchone() == (2,)


def test_a_streaming_pipeline(tmp_path: Path) -> None:
    *lines, demo = block_after("Streaming")
    assert demo.endswith("streamline demo --streaming")
    assert "completed: 20 messages read" in typed(lines, tmp_path)


def test_the_test_command_is_the_one_that_continuous_integration_runs() -> None:
    (line,) = block_after("Work on it")
    assert line.startswith("python3 -m venv .venv && ")
    assert "README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_pages_that_the_readme_names_are_there() -> None:
    for page in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / page).exists(), page
