"""Dead letters sent again: `streamline dead-letters retry`."""

from __future__ import annotations

import json
from typing import Any

import yaml

from tests.conftest import MakeProject
from tests.support.processes import wait_until
from tests.support.project import Block, Project, tap, target, transformer

COLUMNS = {"id": "integer", "text": "string"}
BAD = [{"id": n, "text": f"text {n}" if n % 10 else n} for n in range(1, 31)]
"""30 rows, of which 10, 20 and 30 do not fit their schema."""


def rows(content: list[dict[str, Any]], columns: dict[str, Any] | None = None, **keys: Any) -> Block:
    numbers = {"properties": columns or COLUMNS, "replication_key": "id", "rows": content}
    settings = {"numbers": {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}}
    return tap("rows", {"streams": {"numbers": numbers}}, **{"streams": settings, **keys})


def retyped(content: list[dict[str, Any]] = BAD) -> Block:
    """The same source after its owner has corrected the column's type."""
    return rows(content, {"id": "integer", "text": {"type": ["null", "string", "integer"]}})


def retry(project: Project, *args: str, code: int = 0) -> str:
    completed = project.command("dead-letters", "retry", "p", *args).expect(code)
    project.assert_nothing_left(completed)
    return completed.text


def log(project: Project) -> list[dict[str, Any]]:
    """What the target was sent since the last look."""
    messages = project.messages()
    (project.root / "log.jsonl").unlink(missing_ok=True)
    return messages


def quarantine(**keys: Any) -> Block:
    return target("keyed", {"validate": True, "log": "log.jsonl"}, on_bad_record="quarantine", **keys)


def test_what_still_breaks_its_schema_stays(make_project: MakeProject) -> None:
    project = make_project(rows(BAD), quarantine())
    project.run().expect(0)
    before = project.dead_letters()
    position = project.state_rows()
    log(project)

    retry(project, code=1)

    after = project.dead_letters()
    assert [letter["id"] for letter in after] == [letter["id"] for letter in before]
    assert [letter["times"] for letter in after] == [2, 2, 2]
    assert [message["type"] for message in log(project)] == ["STATE", "SCHEMA"], "none of them reached the target"
    assert project.state_rows() == position


def test_they_arrive_once_the_schema_takes_them(make_project: MakeProject) -> None:
    project = make_project(rows(BAD), quarantine())
    project.run().expect(0)
    project.pipeline("p", retyped(), quarantine())
    project.run().expect(0)
    position = project.state_rows()
    log(project)

    retry(project)

    assert project.dead_letters() == []
    assert project.ids() == list(range(1, 31))
    messages = log(project)
    assert [message["type"] for message in messages] == ["STATE", "SCHEMA", "RECORD", "RECORD", "RECORD"]
    assert messages[1]["key_properties"] == ["id"]
    assert [message["record"] for message in messages[2:]] == [{"id": n, "text": n} for n in (10, 20, 30)]
    assert project.state_rows() == position, "no position has moved"


def test_that_newer_rows_may_be_overwritten_is_said(make_project: MakeProject) -> None:
    # A good record of the same key follows in the same run, or in a later one.
    project = make_project(rows([*BAD, {"id": 30, "text": "new"}]), quarantine())
    project.run().expect(0)
    assert "Note: numbers: " in retry(project, code=1)
    project.pipeline("p", retyped([*BAD, {"id": 31, "text": "new"}]), quarantine())
    project.run().expect(0, "0 quarantined")

    assert "Note: numbers: " in retry(project)


def test_equal_records_without_a_key_are_a_letter_each(make_project: MakeProject) -> None:
    def clicks(column: Any) -> Block:
        spec = {"properties": {"page": column}, "key": [], "rows": [{"page": 7}] * 3}
        return tap("rows", {"streams": {"clicks": spec}}, streams={"clicks": {"replication_method": "FULL_TABLE"}})

    project = make_project(clicks("string"), target("keyed", {"log": "log.jsonl"}, on_bad_record="quarantine"))
    project.run().expect(0)
    assert len(project.dead_letters()) == 3
    project.run().expect(0)
    assert [letter["times"] for letter in project.dead_letters()] == [2, 2, 2], "they are the same three"
    retry(project, code=1)
    assert [letter["times"] for letter in project.dead_letters()] == [3, 3, 3]
    project.pipeline("p", clicks({"type": ["string", "integer"]}), target("keyed", {"log": "log.jsonl"}))
    project.run().expect(0)
    log(project)

    retry(project)

    assert [m["record"] for m in log(project) if m["type"] == "RECORD"] == [{"page": 7}] * 3
    assert project.dead_letters() == []


def test_only_those_that_are_named(make_project: MakeProject) -> None:
    project = make_project(rows(BAD), quarantine())
    project.run().expect(0)
    project.pipeline("p", retyped(), quarantine())
    project.run().expect(0)
    first, *others = [letter["id"] for letter in project.dead_letters()]

    retry(project, str(first))

    assert [letter["id"] for letter in project.dead_letters()] == others
    assert 10 in project.ids()
    assert 20 not in project.ids()


def test_a_table_of_another_name_gets_its_records_back(make_project: MakeProject) -> None:
    settings = {"numbers": {"destination_table": "sums", "columns": {"exclude": ["note"]}}}
    columns = {**COLUMNS, "note": "string"}
    noted = [{**row, "note": "x"} for row in BAD]
    project = make_project(rows(noted, columns), quarantine(streams=settings))
    project.run().expect(0)
    wide = {**columns, "text": {"type": ["null", "string", "integer"]}}
    project.pipeline("p", rows(noted, wide), quarantine(streams=settings))
    project.run().expect(0)

    retry(project)

    assert project.ids("sums") == list(range(1, 31))
    assert project.rows("sums")[9] == {"id": 10, "text": 10}


def test_a_target_that_fails_keeps_all_of_them(make_project: MakeProject) -> None:
    project = make_project(rows(BAD), quarantine())
    project.run().expect(0)
    project.pipeline("p", retyped(), quarantine())
    project.run().expect(0)
    failing = target("fails_at_end", {"path": "out.db"})
    project.pipeline("p", retyped(), failing)

    retry(project, code=1)

    assert ["code 1" in letter["error"] for letter in project.dead_letters()] == [True] * 3


def test_a_stream_that_replaces_its_table_does_not_lose_the_rest_of_it(make_project: MakeProject) -> None:
    def pipeline(source: Block) -> list[Block]:
        return [source, quarantine(plugin={"args": ["--able=activate-version"]})]

    full = {"numbers": {"replication_method": "FULL_TABLE"}}
    project = make_project(*pipeline(rows(BAD, streams=full)))
    project.run().expect(0)
    assert len(project.rows()) == 27
    wide = {"id": "integer", "text": {"type": ["null", "string", "integer"]}}
    project.pipeline("p", *pipeline(rows(BAD[:9], wide, streams=full)))
    project.run().expect(0)

    retry(project)

    assert project.ids() == [*range(1, 10), 10, 20, 30]


def test_what_a_frozen_schema_refused(make_project: MakeProject) -> None:
    good = [{"id": n, "text": f"text {n}"} for n in range(1, 6)]
    changed = [*good, {"id": 6, "text": 6}]
    project = make_project(rows(good), target(schema_change="freeze"))
    project.run().expect(0)
    project.pipeline("p", retyped(changed), target(schema_change="freeze"))
    project.run().expect(0)
    assert [letter["stage"] for letter in project.dead_letters()] == ["schema_change"]

    retry(project, code=1)
    project.command("streams", "set", "p", "numbers", "schema_change=evolve", "--block", "export").expect(0)
    retry(project)

    assert project.ids() == [1, 2, 3, 4, 5, 6]


TWICE = """
@transformer
def change(records: list[dict], *args, **kwargs) -> list[dict]:
    return [{**record, "twice": record["id"] * 2} for record in records]
"""
FAILS_ON_20 = """
@transformer
def change(records: list[dict], *args, **kwargs) -> list[dict]:
    if any(record["id"] == 20 for record in records):
        raise ValueError("20 is too much")
    return [{**record, "text": "ten"} if record["id"] % 10 == 0 else record for record in records]
"""
GOOD = [{"id": n, "text": f"text {n}"} for n in range(1, 31)]


def put_letters(project: Project, stage: str, records: list[dict[str, Any]]) -> None:
    """Dead letters, as a run before had left them."""
    from streamline.state import open_store
    from streamline.state.store import DeadLetter

    store = open_store("sqlite:///.streamline/state.db", project.root)
    letters = [
        DeadLetter(
            pipeline="p",
            block="load",
            stream="numbers",
            run_id="before",
            record=json.dumps(record),
            error="it failed",
            stage=stage,
        )
        for record in records
    ]
    store.save("p", "load", "before", [], letters)
    store.close()


def test_what_a_transformer_refused_goes_through_it_again(make_project: MakeProject) -> None:
    project = make_project(rows(GOOD), transformer(TWICE), target())
    project.run().expect(0)
    put_letters(project, "change", [{"id": 40, "text": "forty"}])

    retry(project)

    assert project.rows()[-1] == {"id": 40, "text": "forty", "twice": 80}


def test_what_was_refused_behind_a_transformer_does_not_go_through_it_again(make_project: MakeProject) -> None:
    project = make_project(rows(GOOD), transformer(TWICE), target())
    project.run().expect(0)
    put_letters(project, "validate", [{"id": 40, "text": "forty", "twice": 7}])

    retry(project)

    assert project.rows()[-1] == {"id": 40, "text": "forty", "twice": 7}


def test_a_letter_on_which_a_transformer_fails_does_not_stop_the_others(make_project: MakeProject) -> None:
    project = make_project(rows(GOOD), transformer(TWICE), target())
    project.run().expect(0)
    put_letters(project, "change", [{"id": n, "text": "x"} for n in (10, 20, 30, 40)])
    project.pipeline("p", rows(GOOD), transformer(FAILS_ON_20), target())

    retry(project, code=1)

    (left,) = project.dead_letters()
    assert "20 is too much" in left["error"]
    assert project.ids()[-1] == 40


def test_letters_that_can_enter_nowhere_say_why(make_project: MakeProject) -> None:
    project = make_project(rows(GOOD), target())
    project.run().expect(0)
    put_letters(project, "gone", [{"id": 1, "text": "x"}])

    retry(project, code=1)

    (left,) = project.dead_letters()
    assert "'gone'" in left["error"]
    assert "no longer downstream of 'load'" in left["error"]


def test_a_target_that_empties_its_table_first_is_not_started(make_project: MakeProject) -> None:
    project = make_project(rows(GOOD), target("keyed", {"load_method": "overwrite", "log": "log.jsonl"}))
    project.run().expect(0)
    put_letters(project, "validate", [{"id": 40, "text": "forty"}])
    log(project)

    retry(project, code=1)

    assert "drop its table" in project.dead_letters()[0]["error"]
    assert log(project) == []


def test_destinations_behind_different_transformers_are_not_guessed(make_project: MakeProject) -> None:
    project = make_project(rows(GOOD), transformer(TWICE), target(), target(uuid="plain", config={"path": "plain.db"}))
    metadata = yaml.safe_load((project.root / "pipelines/p/metadata.yaml").read_text())
    metadata["blocks"][-1]["upstream_blocks"] = ["load"]
    project.write("pipelines/p/metadata.yaml", yaml.safe_dump(metadata))
    project.run().expect(0)
    put_letters(project, "validate", [{"id": 40, "text": "forty"}])

    retry(project, code=1)

    assert len(project.dead_letters()) == 1
    assert 40 not in project.ids(path="plain.db")


def test_a_pipeline_that_runs_is_left_alone(make_project: MakeProject) -> None:
    settings = {"numbers": {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}}
    project = make_project(tap("never_ends", streams=settings, max_duration=60), target("keyed", {"flush": 5}))
    put_letters(project, "validate", [{"id": 1}])
    running = project.start("run", "p")
    try:
        wait_until(lambda: project.ids(), "rows arrive")
        project.command("dead-letters", "retry", "p").expect(1, "run")
    finally:
        running.kill()
    assert len(project.dead_letters()) == 1


def test_one_that_was_refused_for_one_destination_goes_to_that_one_alone(make_project: MakeProject) -> None:
    def sinks() -> tuple[Block, Block]:
        careful = {"on_bad_record": "quarantine"}
        return (
            target("keyed", {"path": "a.db", "log": "a.jsonl"}, uuid="export_a"),
            target("keyed", {"path": "b.db", "log": "b.jsonl"}, uuid="export_b", **careful),
        )

    project = make_project(rows(BAD), *sinks())
    project.run().expect(0)
    assert [letter["destination"] for letter in project.dead_letters()] == ["export_b"] * 3
    assert project.ids(path="a.db") == list(range(1, 31))
    project.pipeline("p", retyped(), *sinks())
    project.run().expect(0)
    (project.root / "a.jsonl").unlink()

    retry(project)

    assert project.ids(path="b.db") == list(range(1, 31))
    assert project.messages("a.jsonl") == [], "it had them from the beginning"


MISFITS = """from streamline.decorators import transformer


@transformer
def change(messages: list[dict], *args, **kwargs):
    return [{**m, "text": m["text"] + "!", "new": NEW} for m in messages]
"""


def test_a_row_that_a_block_could_not_send_on_passes_the_corrected_block_once(make_project: MakeProject) -> None:
    def block(new: str) -> Block:
        return transformer(MISFITS.replace("NEW", new), entry={"configuration": {"batch_rows": 10}})

    content = [{"id": n, "text": f"text {n}"} for n in range(1, 31)]
    project = make_project(rows(content), block("[1] if m['id'] == 20 else 1"), target())
    project.run().expect(0)
    (letter,) = project.dead_letters()
    assert letter["stage"] == "change"
    shown = json.loads(project.command("dead-letters", "show", "p", "--json").expect(0).out)
    assert shown[0]["record"] == {"id": 20, "text": "text 20"}, "as it was given to the block"
    project.pipeline("p", rows(content), block("1"), target())

    retry(project)

    assert project.rows()[19] == {"id": 20, "text": "text 20!", "new": 1}


def test_a_row_that_a_block_made_up_does_not_pass_the_block_again(make_project: MakeProject) -> None:
    made_up = "{'id': 100 + len(messages), 'text': 'sum', 'new': [1]}"
    code = MISFITS.replace(" for m in messages]", f" for m in messages] + [{made_up}]").replace("NEW", "1")
    content = [{"id": n, "text": f"text {n}"} for n in range(1, 31)]
    project = make_project(rows(content), transformer(code), target())
    project.run().expect(0)
    # One a call, and there may be several calls.
    letters = json.loads(project.command("dead-letters", "show", "p", "--json").expect(0).out)
    assert {letter["record"]["text"] for letter in letters} == {"sum"}

    retry(project, code=1)

    assert len(project.dead_letters()) == len(letters), "what fits no schema behind the block still does not"
    assert len(project.rows()) == 30
