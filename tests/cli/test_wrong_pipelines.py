"""Batch pipelines that cannot be run: what is wrong is said with file and line, exit code 2, and nothing has run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Shop

RUNS = "open('ran', 'w')\n@custom\ndef f(*args): ...\n"
ONE = "blocks:\n- {uuid: a, type: custom}\n"
FILES = {"custom/a.py": RUNS, "custom/b.py": RUNS, "custom/c.py": RUNS}

CASES = {
    "a cycle": (
        "blocks:\n- {uuid: a, type: custom, upstream_blocks: [c]}\n- {uuid: b, type: custom, upstream_blocks: [a]}\n"
        "- {uuid: c, type: custom, upstream_blocks: [b]}\n",
        {},
        "pipelines/p/metadata.yaml:2",
        "a → b → c → a",
    ),
    "an unknown upstream block": (
        f"{ONE}- uuid: b\n  type: custom\n  upstream_blocks: [aa]\n",
        {},
        "pipelines/p/metadata.yaml:5",
        "no block 'aa'",
    ),
    "a missing file": (f"{ONE}- {{uuid: gone, type: custom}}\n", {}, "pipelines/p/metadata.yaml:3", "custom/gone.py"),
    "a uuid twice": (f"{ONE}- {{uuid: a, type: custom}}\n", {}, "pipelines/p/metadata.yaml:3", "duplicate block"),
    "a uuid that is a block's and a callback's": (
        f"{ONE}callbacks:\n- {{uuid: a}}\n",
        {"callbacks/a.py": "@callback\ndef f(*args): ...\n"},
        "pipelines/p/metadata.yaml:4",
        "duplicate block 'a': also a custom",
    ),
    "a way out of the project": (
        "blocks:\n- uuid: ../../etc/passwd\n  type: custom\n",
        {},
        "pipelines/p/metadata.yaml:2",
        "is a path outside of the project",
    ),
    "no decorated function": (
        ONE,
        {"custom/a.py": "import os\n\n\ndef f(*args):\n    return 1\n"},
        "custom/a.py:4",
        "no function in this file is decorated with @custom",
    ),
    "the decorator of another type": (
        ONE,
        {"custom/a.py": "@transformer\ndef f(*args): ...\n"},
        "custom/a.py:1",
        "f() is with @transformer",
    ),
    "two decorated functions": (
        ONE,
        {"custom/a.py": "@custom\ndef f(*args): ...\n\n\n@custom\ndef g(*args): ...\n"},
        "custom/a.py:5",
        "f (line 1) and g (line 5)",
    ),
    "a tab in YAML": ("blocks:\n- uuid: a\n\ttype: custom\n", {}, "pipelines/p/metadata.yaml:3", "tab in the indent"),
    "a syntax error": (ONE, {"custom/a.py": "x = 1\ny = (\n"}, "custom/a.py:2", "syntax error"),
    "a condition with a syntax error": (
        f"{ONE}conditionals:\n- {{uuid: c, upstream_blocks: [a]}}\n",
        {"conditionals/c.py": "def\n"},
        "conditionals/c.py:1",
        "syntax error",
    ),
    "a condition without its decorator": (
        f"{ONE}conditionals:\n- {{uuid: c, upstream_blocks: [a]}}\n",
        {"conditionals/c.py": "def f(*args): return True\n"},
        "conditionals/c.py:1",
        "decorated with @condition",
    ),
    "a source, which is another type of pipeline's": (
        "blocks:\n- {uuid: s, type: data_loader, language: yaml}\n",
        {"data_loaders/s.yaml": "source: tap-x\n"},
        "pipelines/p/metadata.yaml:2",
        "type: integration",
    ),
    "SQL with a template that is not closed": (
        "blocks:\n- {uuid: s, type: data_loader, language: sql}\n",
        {"data_loaders/s.sql": "select 1\nfrom {{ variables('x' }}\n"},
        "data_loaders/s.sql:2",
        "template",
    ),
    "a limit of no kind": (
        f"{ONE}dynamic_blocks:\n  max_child_block_runs: many\n",
        {},
        "pipelines/p/metadata.yaml:4",
        "max_child_block_runs must be a whole number",
    ),
    "a switch that is no switch": (
        "blocks:\n- uuid: a\n  type: custom\n  configuration:\n    dynamic: sometimes\n",
        {},
        "pipelines/p/metadata.yaml:5",
        "dynamic must be true, false",
    ),
    "an isolated block without requirements": (
        "blocks:\n- uuid: a\n  type: custom\n  configuration: {isolated: true}\n",
        {},
        "pipelines/p/metadata.yaml:4",
        "no requirements.txt",
    ),
}


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize("case", CASES)
def test_it_is_said_where_and_what(tmp_path: Path, case: str, command: str) -> None:
    metadata, files, where, says = CASES[case]
    (tmp_path / "streamline.yaml").write_text("name: shop\n")
    for name, text in {**FILES, **files, "pipelines/p/metadata.yaml": metadata}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    shop = Shop(tmp_path)
    result = shop(command, "p", code=2)
    assert f"{where}: " in result.output
    hint_or_message = " ".join(result.output.split())
    assert says in hint_or_message
    assert "Traceback" not in result.output
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / ".streamline/data").exists()
    assert shop.json("runs", "list") == []
