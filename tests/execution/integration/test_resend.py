"""Where dead letters enter the flow again, under which SCHEMA, and what becomes of those that cannot."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import anyio
import pytest

from streamline.errors import StreamlineError
from streamline.execution.integration import resend as module
from streamline.execution.integration.plan import PathPlan, Plan
from streamline.execution.integration.resend import MAX_ROUNDS, LetterGroup, _reduced, _send, entries_of
from streamline.flow.items import BadRecord, Schema
from streamline.flow.stages.schema_change import ADDED
from streamline.state.store import DeadLetter, Store
from streamline.telemetry.progress import Progress
from tests.execution.integration.plans import context, path, plan, sink, source, stream

USERS = stream("shop-users", stream="users", key_properties=["id"])
ORDERS = stream("orders", key_properties=["id"])


def letter(id: int = 1, stage: str = "validate", name: str = "users", **values: Any) -> DeadLetter:
    fields = {"pipeline": "p", "block": "load", "run_id": "r0", "record": '{"id":1}', "error": "odd"}
    return DeadLetter(id=id, stream=name, stage=stage, **{**fields, **values})


def planned(way: PathPlan | None = None, *uuids: str, **values: Any) -> Plan:
    load = source(USERS, ORDERS)
    way = way or path("export")
    sinks = [sink(load, uuid=uuid, **values) for uuid in way.all_sinks()]
    return plan(load, sinks=sinks, paths={"load": way})


def store(schemas: Mapping[str, Mapping[str, Any]] | None = None) -> Store:
    return cast(Store, SimpleNamespace(last_schemas=lambda pipeline, key: (schemas or {}).get(key, {})))


def enter(
    made: Plan, *letters: DeadLetter, schemas: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[list[LetterGroup], dict[int, str]]:
    errors: dict[int, str] = {}
    return entries_of(store(schemas), made, letters, errors), errors


def one(made: Plan, *letters: DeadLetter, schemas: Mapping[str, Mapping[str, Any]] | None = None) -> LetterGroup:
    entries, errors = enter(made, *letters, schemas=schemas)
    assert (len(entries), errors) == (1, {})
    return entries[0]


def refused(made: Plan, *letters: DeadLetter) -> str:
    entries, errors = enter(made, *letters)
    assert entries == []
    return errors[1]


def blocks(entry: LetterGroup) -> tuple[list[str], list[str]]:
    return [each.block.uuid for each in entry.path.transforms], entry.path.all_sinks()


KNOWN = {f"load > {place}": {"users": {"schema": {"x": place}}} for place in ("first", "second", "export", "other")}


def test_letters_of_one_place_are_sent_together() -> None:
    entries, errors = enter(planned(), letter(1), letter(2), letter(3, name="orders"), letter(4, "schema_change"))
    assert [[each.id for each in entry.letters] for entry in entries] == [[1, 2], [3], [4]]
    assert errors == {}


def test_what_a_destination_refused_enters_before_it_and_what_no_one_claims_before_all() -> None:
    made = planned(path("export", "other"))
    assert blocks(one(made, letter(destination="other"))) == ([], ["other"])
    assert blocks(one(made, letter())) == ([], ["export", "other"])
    behind = planned(path("export", transforms=["first"]))
    entry = one(behind, letter(), schemas=KNOWN)
    assert (blocks(entry), entry.fresh, entry.schema.schema) == (([], ["export"]), False, {"x": "export"})


def test_what_a_transformer_refused_passes_it_again_and_what_it_returned_does_not() -> None:
    made = planned(path("export", transforms=["first", "second"]))
    entry = one(made, letter(stage="first"), schemas=KNOWN)
    assert (blocks(entry), entry.fresh, entry.schema.schema) == (
        (["first", "second"], ["export"]),
        True,
        {"x": "first"},
    )
    entry = one(made, letter(stage="second"), schemas=KNOWN)
    assert (blocks(entry), entry.fresh) == ((["second"], ["export"]), False)
    entry = one(made, letter(stage="first", output=True), schemas=KNOWN)
    assert (blocks(entry), entry.fresh, entry.schema.schema) == ((["second"], ["export"]), False, {"x": "second"})


def test_a_transformer_on_a_branch_is_found() -> None:
    made = planned(path(transforms=["first"], branches=[path("export"), path("other", transforms=["second"])]))
    entry = one(made, letter(stage="second"), schemas=KNOWN)
    assert (blocks(entry), entry.fresh) == ((["second"], ["other"]), False)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"block": "gone"}, "'gone' is no longer a source"),
        ({"destination": "gone"}, "'gone' no longer takes"),
        ({"stage": "gone"}, "'gone', which refused it"),
    ],
)
def test_a_letter_whose_place_is_gone_stays(values: dict[str, Any], reason: str) -> None:
    assert reason in refused(planned(), letter(**values))


def test_a_letter_of_a_stream_that_is_not_exported_stays() -> None:
    assert "no destination takes" in refused(planned(streams=["orders"]), letter())
    assert one(planned(streams=["users"]), letter()).path.all_sinks() == ["export"]


def test_a_letter_goes_to_the_destinations_alone_that_export_its_stream() -> None:
    load = source(USERS, ORDERS)
    made = plan(load, sinks=[sink(load), sink(load, uuid="other", streams=["orders"])])
    assert one(made, letter()).path.all_sinks() == ["export"]
    assert "'other' no longer takes" in refused(made, letter(destination="other"))


def test_destinations_behind_different_transformers_are_not_guessed() -> None:
    made = planned(path("export", branches=[path("other", transforms=["first"])]))
    assert "different transformers" in refused(made, letter())
    assert one(made, letter(destination="other"), schemas=KNOWN).path.all_sinks() == ["other"]


def test_a_target_that_drops_its_table_gets_no_letter() -> None:
    assert "drop its table" in refused(planned(config={"load_method": "overwrite"}), letter())


# -- its SCHEMA


def test_the_schema_of_the_refusal_comes_before_that_of_the_destination_and_that_of_the_catalog() -> None:
    made = planned()
    loaded = {"export < load": {"users": {"x": "loaded", ADDED: {}}}}
    kept = {"schema": {"x": "kept"}, "key_properties": ["k"]}
    assert one(made, letter(), schemas={**loaded, "load > export": {"users": kept}}).schema == Schema(
        "users", {"x": "kept"}, ["k"]
    )
    assert one(made, letter(), schemas=loaded).schema == Schema("users", {"x": "loaded"}, ["id"])
    assert one(made, letter()).schema == Schema("users", {}, ["id"])
    assert one(made, letter(name="unknown"), schemas={"export < load": {"unknown": {}}}).schema.key_properties is None


def test_without_a_schema_a_letter_stays() -> None:
    assert "schema of stream 'users'" in refused(planned(path("export", transforms=["first"])), letter())
    assert "schema of stream 'unknown'" in refused(planned(), letter(name="unknown"))
    made = planned()
    made.sources["load"].catalog = None
    assert "schema of stream 'users'" in refused(made, letter())


# -- the run of letters


def test_the_run_of_letters_has_one_process_and_replaces_nothing() -> None:
    made = planned(names=["activate-version"], on_bad_record="fail", streams={"users": {"on_bad_record": "pass"}})
    entry = one(made, letter())
    reduced = _reduced(made, entry)
    (group,) = reduced.groups()
    assert group.streams == (USERS, ORDERS)
    export = reduced.sinks["export"]
    assert not export.replaces
    assert export.setting("on_bad_record", "load", "users") == "quarantine"
    assert export.setting("max_bad_records", "load", "users") > 10**9
    assert export.settings_of("load", "orders") is None
    entry.fresh = False
    assert _reduced(made, entry).groups()[0].streams == ()


def test_a_letter_that_is_refused_by_several_destinations_counts_once() -> None:
    made, progress = planned(), Progress()
    letters = [letter(1), letter(2)]
    delivery = module._Delivery(context(run={"progress": progress}), made, one(made, *letters), letters)
    bad = [BadRecord("users", b"{}", "odd", "validate")]
    delivery._refuse(bad)
    delivery._observe([])
    assert (delivery.current, delivery.refused) == (None, {}), "the SCHEMA is no letter"
    delivery._observe([])
    delivery._observe([])
    for _ in range(3):
        delivery._refuse(bad)
    assert (delivery.current, delivery.refused) == (1, {2: "odd"})
    assert [(each["read"], each["quarantined"]) for each in progress.summary()["streams"]] == [(2, 1)]


class Delivery:
    """Stands for the flow: each round ends as is written down."""

    rounds: ClassVar[list[dict[str, Any]]] = []
    sent: ClassVar[list[list[int]]] = []

    def __init__(self, context: Any, plan: Plan, entry: LetterGroup, letters: Any) -> None:
        values = self.rounds.pop(0)
        self.sent.append([each.id for each in letters])
        self.current: int | None = values.get("current", 0)
        self.refused: dict[int, str] = values.get("refused", {})
        self.targets_failed: bool = values.get("targets_failed", False)
        self._error: Exception | None = values.get("error")

    async def run(self) -> Exception | None:
        return self._error


BROKEN = StreamlineError("it broke", code="block.failed")


def send(monkeypatch: pytest.MonkeyPatch, numbers: int, *rounds: dict[str, Any]) -> tuple[dict[int, str], Progress]:
    monkeypatch.setattr(module, "_Delivery", Delivery)
    Delivery.rounds, Delivery.sent = list(rounds), []
    made, errors, progress = planned(), {}, Progress()
    entry = one(made, *(letter(number) for number in range(1, numbers + 1)))
    anyio.run(_send, context(run={"progress": progress}), made, entry, errors)
    return errors, progress


def quarantined(progress: Progress) -> int:
    return int(progress.summary()["quarantined"])


def test_letters_that_are_delivered_have_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, _ = send(monkeypatch, 3, {"refused": {2: "still odd"}})
    assert (errors, Delivery.sent) == ({2: "still odd"}, [[1, 2, 3]])


@pytest.mark.parametrize("failure", [{"targets_failed": True}, {"current": None}], ids=str)
def test_after_a_failure_of_the_target_no_letter_counts_as_delivered(
    failure: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors, _ = send(monkeypatch, 3, {"error": BROKEN, "refused": {2: "odd"}, "current": 1, **failure})
    assert errors == {1: "it broke", 2: "odd", 3: "it broke"}


def test_a_letter_on_which_a_block_fails_does_not_hold_up_those_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, progress = send(monkeypatch, 3, {"error": BROKEN, "current": 1}, {})
    assert (errors, Delivery.sent) == ({2: "it broke"}, [[1, 2, 3], [3]])
    assert quarantined(progress) == 1
    errors, progress = send(monkeypatch, 2, {"error": ValueError("odd"), "current": 1, "refused": {2: "odd"}})
    assert (errors, Delivery.sent) == ({2: "ValueError: odd"}, [[1, 2]])
    assert quarantined(progress) == 0, "the flow has counted it"


def test_after_many_failures_the_rest_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, _ = send(monkeypatch, MAX_ROUNDS + 2, *[{"error": BROKEN}] * MAX_ROUNDS)
    assert len(errors) == MAX_ROUNDS + 2
    assert [number for number, error in errors.items() if "not tried" in error] == [MAX_ROUNDS + 1, MAX_ROUNDS + 2]
