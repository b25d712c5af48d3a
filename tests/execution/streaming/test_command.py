"""Streaming pipelines of Python blocks, run by the real command."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.batch import BatchProject
from tests.support.processes import wait_until

NUMBERS = """
@streaming_source
class Numbers:
    def batch_read(self, handler):
        for number in range(self.position or 0, 5):
            handler([{"id": number}], position=number + 1)
"""
ENDLESS = """
import time

@streaming_source
class Numbers:
    def batch_read(self, handler):
        number = self.position or 0
        while True:
            handler([{"id": number}], position=number + 1)
            number += 1
            time.sleep(0.01)
"""
DOUBLE = """
@transformer
def double(messages: list[dict], *args, **kwargs):
    return [{"id": 2 * message["id"]} for message in messages]
"""
FILE = """
@streaming_sink
class File:
    def batch_write(self, messages):
        with open("out.txt", "a") as file:
            file.writelines(f"{message['id']}\\n" for message in messages)
"""


@pytest.fixture
def project(tmp_path: Path) -> BatchProject:
    """A project for streaming pipelines."""
    made = BatchProject(tmp_path / "shop")
    made.type = "streaming"
    return made


def written(project: BatchProject) -> list[int]:
    return [int(line) for line in project.lines("out.txt")]


def pipeline(project: BatchProject, source: str = NUMBERS, transformer: str = DOUBLE, sink: str = FILE) -> None:
    project.block("read", source, type="data_loader")
    project.block("double", transformer)
    project.block("write", sink, type="data_exporter")


def test_from_a_source_through_a_transformer_into_a_sink(project: BatchProject) -> None:
    pipeline(project)
    completed = project.run("--json").expect(0)
    assert written(project) == [0, 2, 4, 6, 8]
    result = json.loads(completed.out)
    assert (result["status"], result["records"]) == ("completed", 5)
    assert project.statuses() == {"read": "completed", "double": "completed", "write": "completed"}
    project.run().expect(0)
    assert written(project) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(project: BatchProject, number: signal.Signals) -> None:
    pipeline(project, ENDLESS)
    running = project.start("run", "p")
    wait_until(lambda: len(written(project)) > 3, "messages")
    running.signal(number)
    running.finish().expect(0)
    (bookmark,) = json.loads(project.command("state", "list", "p", "--json").expect(0).out)
    assert written(project) == [2 * each for each in range(int(bookmark["value"]))]


def test_what_is_not_proven_in_time_is_left_to_the_next_run(project: BatchProject) -> None:
    sink = FILE + "\n        import time\n        time.sleep(600)\n"
    pipeline(project, ENDLESS, sink=sink)
    running = project.start("run", "p")
    wait_until(lambda: written(project) != [], "messages")
    running.signal(signal.SIGTERM)
    running.finish().expect(143)


def test_the_second_signal_ends_it_at_once(project: BatchProject) -> None:
    sink = FILE + "\n        import time\n        time.sleep(600)\n"
    pipeline(project, ENDLESS, sink=sink)
    project.env["STREAMLINE_INTERRUPT_SECONDS"] = "60"
    running = project.start("run", "p")
    wait_until(lambda: written(project) != [], "messages")
    running.signal(signal.SIGINT)
    (log,) = project.root.glob(".streamline/runs/*/run.log")
    wait_until(lambda: "stopping" in log.read_text(), "the signal")
    running.signal(signal.SIGINT)
    running.finish().expect(130)


def test_killed_it_goes_on_from_the_last_proof(project: BatchProject) -> None:
    pipeline(project, ENDLESS)
    running = project.start("run", "p")
    wait_until(lambda: len(written(project)) > 10, "messages")
    running.kill()
    project.write("data_loaders/read.py", NUMBERS.replace("5)", "(self.position or 0) + 1)"))
    project.run().expect(0)
    assert sorted(set(written(project))) == [2 * each for each in range(max(written(project)) // 2 + 1)]


def test_a_message_on_which_the_transformer_raises_becomes_a_dead_letter(project: BatchProject) -> None:
    pipeline(project, transformer=DOUBLE.replace('2 * message["id"]', '12 // (message["id"] - 2)'))
    project.run().expect(0, "1 dead letter")
    assert len(written(project)) == 4
    (letter,) = json.loads(project.command("dead-letters", "list", "p", "--json").expect(0).out)
    assert letter["stage"] == "double"
    assert "ZeroDivisionError" in letter["error"]


def test_on_error_stop_shows_the_users_traceback(project: BatchProject) -> None:
    project.keys = {"on_error": "stop"}
    pipeline(project, transformer=DOUBLE.replace('2 * message["id"]', '12 // (message["id"] - 2)'))
    completed = project.run()
    assert completed.code == 1
    assert "transformers/double.py" in completed.err
    assert "ZeroDivisionError" in completed.err


def test_a_file_that_cannot_be_loaded_is_no_reason_for_another_attempt(project: BatchProject) -> None:
    pipeline(project, transformer="raise OSError\n" + DOUBLE)
    completed = project.run()
    assert completed.code == 1
    assert "OSError" in completed.err
    assert written(project) == []


def test_callbacks_are_called_when_it_has_ended(project: BatchProject) -> None:
    pipeline(project)
    told = """
        @callback("success")
        def succeeded(*args, **kwargs):
            with open("told.txt", "a") as file:
                file.write(f"{kwargs['parent_block_uuid']} success\\n")

        @callback("failure")
        def failed(*args, **kwargs):
            with open("told.txt", "a") as file:
                file.write(f"{kwargs['parent_block_uuid']} failure\\n")
    """
    project.block("told", told, type="callback", upstream=["double"])
    project.keys["on_error"] = "stop"
    project.save()
    project.write(
        "transformers/double.py", "@transformer\ndef double(messages, *args, **kwargs):\n    return messages[9]\n"
    )
    assert project.run().code == 1
    assert project.lines("told.txt") == ["double failure"]
    project.write("transformers/double.py", DOUBLE)
    project.run().expect(0, "5 messages read")
    assert project.lines("told.txt")[1:] == ["double success"]


def test_options_of_other_types_are_refused(project: BatchProject) -> None:
    pipeline(project)
    project.run("--full-refresh").expect(2)
    project.type = "python"
    project.save()
    project.run("--until-caught-up").expect(2)


def test_sighup_reads_the_files_again(project: BatchProject) -> None:
    pipeline(project, ENDLESS)
    running = project.start("run", "p")
    wait_until(lambda: len(written(project)) > 3, "messages")
    metadata = project.root / "pipelines/p/metadata.yaml"
    right = metadata.read_text()
    metadata.write_text(right + "on_error: skip\n")
    running.signal(signal.SIGHUP)
    (log,) = project.root.glob(".streamline/runs/*/run.log")
    wait_until(lambda: "goes on as it was" in log.read_text(), "the refusal")
    metadata.write_text(right)
    project.write("transformers/double.py", DOUBLE.replace("2 *", "-1 *"))
    running.signal(signal.SIGHUP)
    wait_until(lambda: min(written(project)) < 0, "the new code")
    running.signal(signal.SIGTERM)
    running.finish().expect(0)
    numbers = [each // 2 if each > 0 else -each for each in written(project)]
    assert numbers == list(range(len(numbers)))


def test_sighup_ends_the_wait_for_the_next_attempt(project: BatchProject) -> None:
    project.keys["retry_config"] = {"retries": 9, "delay": 600, "max_delay": 600}
    pipeline(project, ENDLESS, sink=FILE.replace("with open", "raise RuntimeError\n        with open"))
    running = project.start("run", "p")
    logs = ".streamline/runs/*/run.log"
    wait_until(
        lambda: any("another attempt starts" in log.read_text() for log in project.root.glob(logs)), "the failure"
    )
    right = (project.root / "data_exporters/write.py").read_text().replace("raise", "#")
    project.write("data_exporters/write.py", right)
    running.signal(signal.SIGHUP)
    wait_until(lambda: len(written(project)) > 3, "messages")
    running.signal(signal.SIGTERM)
    running.finish().expect(0)


@pytest.mark.parametrize("block", ["read", "double", "write"])
def test_a_missing_import_is_found_by_check_and_before_the_start(project: BatchProject, block: str) -> None:
    files = {"read": NUMBERS, "double": DOUBLE, "write": FILE}
    files[block] = "import no_such_module\n" + files[block]
    pipeline(project, files["read"], files["double"], files["write"])
    (problem,) = [
        each for each in json.loads(project.command("check", "p", "--json").expect(2).out)["checks"] if not each["ok"]
    ]
    assert (problem["code"], problem["block"]) == ("package.missing", block)
    assert problem["where"].endswith(f"{block}.py:1")
    assert json.loads(project.run("--json").expect(2).out)["error"]["code"] == "package.missing"
    assert project.lines("out.txt") == []


@pytest.mark.parametrize(("key", "meant"), [("delivry", "delivery"), ("dead_letters", "dead_letter")])
def test_a_misspelt_key_of_the_pipeline_is_refused(project: BatchProject, key: str, meant: str) -> None:
    pipeline(project)
    project.keys[key] = "exactly-once"
    project.save()
    error = json.loads(project.run("--json").expect(2).out)["error"]
    lines = (project.root / "pipelines/p/metadata.yaml").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if text.startswith(key))
    assert (error["code"], error["where"]) == ("setting.unknown", f"pipelines/p/metadata.yaml:{line}")
    assert f"'{meant}'" in error["hint"]


def test_keys_of_ones_own_and_those_that_mage_writes_are_accepted(project: BatchProject) -> None:
    pipeline(project)
    project.keys |= {"owner": "sales", "executor_count": 1, "cache_block_output_in_memory": False, "widgets": []}
    project.save()
    project.run().expect(0)
