"""What a run tells while it goes on, and afterwards."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys

import pytest

from tests.support.batch import BatchProject, failed
from tests.support.processes import wait_until


def fan_out(project: BatchProject, items: int, child: str, **keys: object) -> None:
    project.keys.update(keys)
    project.block(
        "items",
        f"@data_loader\ndef load():\n    return list(range({items}))\n",
        type="data_loader",
        configuration={"dynamic": True},
    )
    project.block("child", child)


def test_every_failing_child_is_told(project: BatchProject) -> None:
    fan_out(
        project, 4, "@transformer\ndef child(n):\n    if n % 2:\n        raise ValueError(f'bad {n}')\n    return n\n"
    )
    failed(project.run(), r"child 1: ValueError: bad 1 \(and 1 more: 3\)")
    for number in (1, 3):
        assert f"child {number}: " in project.logs()
        assert f"ValueError: bad {number}" in project.logs()
    listed = next(block for block in project.shown()["blocks"] if block["uuid"] == "child")["results"]
    assert [(failure["child"], failure["error"]) for failure in listed] == [
        (1, "ValueError: bad 1"),
        (3, "ValueError: bad 3"),
    ]


def test_children_print_under_their_numbers(project: BatchProject) -> None:
    fan_out(project, 2, "@transformer\ndef child(n):\n    print('here', n)\n")
    project.run().expect(0, r"child\[0\] *\| here 0", r"child\[1\] *\| here 1")


def test_a_limit_hides_no_failure(project: BatchProject) -> None:
    fan_out(
        project,
        4,
        "@transformer\ndef child(n):\n    if n == 3:\n        raise ValueError('three')\n    return [n, n + 10]\n",
        dynamic_blocks={"max_child_block_runs": 4, "on_max_child_block_runs_exceeded": "limit"},
    )
    project.entries["blocks"][1]["configuration"] = {"dynamic": True}
    project.block("gather", "@transformer\ndef gather(n):\n    return n\n", configuration={"reduce_output": True})
    project.block("export", "@data_exporter\ndef export(found):\n    print('EXPORTED', found)\n", type="data_exporter")
    completed = failed(project.run(), "ValueError: three", "limited to 4 of 6 items")
    assert "EXPORTED" not in completed.text
    assert project.statuses()["export"] == "upstream_failed"


def test_why_a_block_was_skipped_is_told(project: BatchProject) -> None:
    project.block("load", "@data_loader\ndef load():\n    return 1\n", type="data_loader")
    project.block("gate", "@transformer\ndef gate(n) -> bool:\n    return False\n")
    project.block("behind", "@transformer\ndef behind(n):\n    return n\n", upstream=["gate"])
    project.block("after", "@transformer\ndef after(n):\n    return n\n", upstream=["behind"])
    project.block("other", "@transformer\ndef other(n):\n    return n\n", upstream=["load"])
    project.block("never", "@condition\ndef never(n):\n    return False\n", type="conditional", upstream=["other"])
    completed = project.run().expect(
        0,
        "behind .*skipped .*'gate' returned false",
        "after .*skipped .*'behind' was skipped",
        "other .*'never' returned false",
    )
    assert "returned false for 'other'" in project.logs(), completed


def test_a_retry_is_told_once_and_with_its_child(project: BatchProject) -> None:
    fan_out(
        project,
        2,
        "@transformer\ndef child(n, **kwargs):\n    if n and kwargs['retry']['attempts'] < 2:\n"
        "        raise OSError('away')\n    return n\n",
        retry_config={"retries": 1, "delay": 0},
    )
    completed = project.run().expect(0, r"child\[1\] *OSError: away; retry at once")
    assert completed.text.count("OSError: away") == 1


def test_a_generators_chunks_are_one_result(project: BatchProject) -> None:
    frames = "    for n in range(30):\n        yield pd.DataFrame({'n': [n]})\n"
    project.block("load", f"import pandas as pd\n@data_loader\ndef load():\n{frames}", type="data_loader")
    project.run().expect(0, "30 chunks, 30 rows")
    assert project.shown()["blocks"][0]["results"] == [{"name": "output", "kind": "30 chunks", "rows": 30}]


def test_a_bar_of_progress_is_its_last_state(project: BatchProject) -> None:
    project.block(
        "load", "@data_loader\ndef load():\n    print('10 %\\r50 %\\r100 %\\r')\n    print('end')\n", type="data_loader"
    )
    completed = project.run().expect(0, "load *\\| 100 %", "load *\\| end")
    assert "50 %" not in completed.text


def test_secrets_in_a_configuration_are_masked(project: BatchProject) -> None:
    project.block(
        "load",
        "@data_loader\ndef load(**kwargs):\n    print(kwargs['configuration']['api_token'])\n",
        type="data_loader",
        configuration={"note": "hello", "api_token": "tok-987654321"},
    )
    completed = project.run().expect(0)
    assert "tok-987654321" not in completed.text + project.logs()


def test_tests_of_a_sensor_run_as_well(project: BatchProject) -> None:
    project.block(
        "wait",
        "@sensor\ndef there():\n    return True\n\n"
        "@test\ndef never(output):\n    assert output is False, 'it was true'\n",
        type="sensor",
    )
    failed(project.run("--test"), "it was true")
    project.run().expect(0)


def test_tests_asked_for_at_the_resumption_run_on_what_is_kept(project: BatchProject) -> None:
    project.block(
        "load",
        "@data_loader\ndef load():\n    return 1\n\n@test\ndef is_two(output):\n    assert output == 2, 'not two'\n",
        type="data_loader",
    )
    project.block("bad", "@transformer\ndef bad(n):\n    raise ValueError('x')\n")
    failed(project.run(), "ValueError: x")
    failed(project.run("--resume", "--test"), "not two")
    assert project.statuses() == {"load": "failed", "bad": "upstream_failed"}


def test_a_block_that_changed_since_it_ran_is_mentioned(project: BatchProject) -> None:
    project.block("load", "@data_loader\ndef load():\n    return 1\n", type="data_loader")
    project.block("bad", "@transformer\ndef bad(n):\n    raise ValueError('x')\n")
    failed(project.run(), "ValueError: x")
    project.write("data_loaders/load.py", "@data_loader\ndef load():\n    return 22\n")
    project.write("transformers/bad.py", "@transformer\ndef bad(n):\n    return n\n")
    project.run("--resume").expect(0, "Warning: load: its file has changed since it ran")
    assert project.output("bad") == 1


def test_hints_are_commands_that_can_be_copied(project: BatchProject) -> None:
    project.block("bad", "@data_loader\ndef load():\n    raise ValueError('x')\n", type="data_loader")
    failed(project.run(), "`streamline run p --resume` continues")
    failed(project.run("--block-uuid", "bad"), "To repeat it: streamline run p --block-uuid bad")


def test_what_an_interrupted_run_had_not_begun_is_cancelled(project: BatchProject) -> None:
    project.block(
        "wait",
        "import pathlib, time\n@data_loader\ndef load():\n    pathlib.Path('begun').touch()\n    time.sleep(60)\n",
        type="data_loader",
    )
    project.block("behind", "@transformer\ndef behind(x):\n    return x\n")
    running = project.start("run", "p")
    wait_until((project.root / "begun").exists, "the block begins")
    running.signal(signal.SIGINT)
    running.finish().expect(130, "Stopping: blocks have 5 s", "--resume` continues")
    assert project.statuses() == {"wait": "cancelled", "behind": "cancelled"}


def test_a_terminal_shows_what_works_now(project: BatchProject) -> None:
    fan_out(project, 3, "import time\n@transformer\ndef child(n):\n    time.sleep(1.6)\n")
    main, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "streamline", "run", "p"],
        cwd=project.root,
        env={**project.env, "TERM": "xterm", "STREAMLINE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=other,
        stderr=subprocess.STDOUT,
    )
    os.close(other)
    shown = b""
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(main)
    assert process.wait(30) == 0
    assert b"child 0/3 " in shown
    assert b"completed" in shown


@pytest.mark.parametrize("command", [["run", "p"], ["runs", "list"]])
def test_a_closed_standard_output_harms_nothing(project: BatchProject, command: list[str]) -> None:
    project.block("load", "@data_loader\ndef load():\n    print('x')\n    return 1\n", type="data_loader")
    line = " ".join([sys.executable, "-m", "streamline", *command])
    done = subprocess.run(
        ["sh", "-c", f"{line} >&-"], cwd=project.root, env=project.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done
    assert "bug" not in done.stderr
    assert json.loads(project.command("runs", "list", "--json").out) == [] or project.output("load") == 1
