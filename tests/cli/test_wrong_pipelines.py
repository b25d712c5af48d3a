"""Batch pipelines that cannot be run: what is wrong is said with file and line, exit code 2, and nothing has run."""

from __future__ import annotations

import json
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
        "graph.cycle",
        "a → b → c → a",
    ),
    "an unknown upstream block": (
        f"{ONE}- uuid: b\n  type: custom\n  upstream_blocks: [aa]\n",
        {},
        "pipelines/p/metadata.yaml:5",
        "graph.unknown_block",
        "'aa'",
    ),
    "a missing file": (
        f"{ONE}- {{uuid: gone, type: custom}}\n",
        {},
        "pipelines/p/metadata.yaml:3",
        "block.file_missing",
        "custom/gone.py",
    ),
    "a uuid twice": (
        f"{ONE}- {{uuid: a, type: custom}}\n",
        {},
        "pipelines/p/metadata.yaml:3",
        "graph.duplicate",
        "'a'",
    ),
    "a uuid that is a block's and a callback's": (
        f"{ONE}callbacks:\n- {{uuid: a}}\n",
        {"callbacks/a.py": "@callback\ndef f(*args): ...\n"},
        "pipelines/p/metadata.yaml:4",
        "graph.duplicate",
        "custom",
    ),
    "a way out of the project": (
        "blocks:\n- uuid: ../../etc/passwd\n  type: custom\n",
        {},
        "pipelines/p/metadata.yaml:2",
        "block.invalid_name",
        "'../../etc/passwd'",
    ),
    "no decorated function": (
        ONE,
        {"custom/a.py": "import os\n\n\ndef f(*args):\n    return 1\n"},
        "custom/a.py:4",
        "block.function_missing",
        "@custom",
    ),
    "the decorator of another type": (
        ONE,
        {"custom/a.py": "@transformer\ndef f(*args): ...\n"},
        "custom/a.py:1",
        "block.function_missing",
        "@transformer",
    ),
    "two decorated functions": (
        ONE,
        {"custom/a.py": "@custom\ndef f(*args): ...\n\n\n@custom\ndef g(*args): ...\n"},
        "custom/a.py:5",
        "block.function_ambiguous",
        "f (line 1) and g (line 5)",
    ),
    "a tab in YAML": ("blocks:\n- uuid: a\n\ttype: custom\n", {}, "pipelines/p/metadata.yaml:3", "yaml.tab", ""),
    "a syntax error": (ONE, {"custom/a.py": "x = 1\ny = (\n"}, "custom/a.py:2", "block.syntax", ""),
    "a condition with a syntax error": (
        f"{ONE}conditionals:\n- {{uuid: c, upstream_blocks: [a]}}\n",
        {"conditionals/c.py": "def\n"},
        "conditionals/c.py:1",
        "block.syntax",
        "",
    ),
    "a condition without its decorator": (
        f"{ONE}conditionals:\n- {{uuid: c, upstream_blocks: [a]}}\n",
        {"conditionals/c.py": "def f(*args): return True\n"},
        "conditionals/c.py:1",
        "block.function_missing",
        "@condition",
    ),
    "SQL with a template that is not closed": (
        "blocks:\n- {uuid: s, type: data_loader, language: sql}\n",
        {"data_loaders/s.sql": "select 1\nfrom {{ variables('x' }}\n"},
        "data_loaders/s.sql:2",
        "template.syntax",
        "",
    ),
    "a limit of no kind": (
        f"{ONE}dynamic_blocks:\n  max_child_block_runs: many\n",
        {},
        "pipelines/p/metadata.yaml:4",
        "setting.invalid",
        "max_child_block_runs",
    ),
    "a switch that is no switch": (
        "blocks:\n- uuid: a\n  type: custom\n  configuration:\n    dynamic: sometimes\n",
        {},
        "pipelines/p/metadata.yaml:5",
        "setting.invalid",
        "dynamic",
    ),
    "an isolated block without requirements": (
        "blocks:\n- uuid: a\n  type: custom\n  configuration: {isolated: true}\n",
        {},
        "pipelines/p/metadata.yaml:4",
        "requirements.missing",
        "requirements.txt",
    ),
}


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize("case", CASES)
def test_it_is_said_where_and_what(tmp_path: Path, case: str, command: str) -> None:
    metadata, files, where, code, shown_name = CASES[case]
    (tmp_path / "streamline.yaml").write_text("name: shop\n")
    for name, text in {**FILES, **files, "pipelines/p/metadata.yaml": metadata}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    shop = Shop(tmp_path)
    result = shop(command, "p", "--json", code=2)
    shown = json.loads(result.stdout)
    (failure,) = [shown["error"]] if "error" in shown else [each for each in shown["checks"] if not each["ok"]]
    assert (failure["code"], failure["where"]) == (code, where)
    assert shown_name in json.dumps(failure, ensure_ascii=False)
    assert "Traceback" not in result.output
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / ".streamline/data").exists()
    assert shop.json("runs", "list") == []


def test_a_block_of_an_integration_pipeline_has_no_output(shop: Shop) -> None:
    shop.refuses("output.never_stored", "output", "shop", "load")
