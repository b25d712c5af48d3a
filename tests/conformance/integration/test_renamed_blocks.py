"""Blocks that are renamed keep their positions, proofs and dead letters: nothing is loaded twice, nothing is lost."""

from __future__ import annotations

from tests.conformance.integration.common import rows_tap, upto
from tests.conftest import MakeProject
from tests.support.project import target

ROWS = [{"id": n, "text": n if n == 20 else str(n)} for n in upto(40)]


def test_a_renamed_block_continues_where_it_was(make_project: MakeProject) -> None:
    project = make_project(
        rows_tap({"numbers": ROWS}, {"spy": "spy"}, uuid="load"),
        target("keyed", uuid="export", on_bad_record="quarantine"),
    )
    project.run().expect(0)
    before = project.position()

    project.command("rename", "load", "reader", "--pipeline", "p").expect(0, "1 position", "1 dead letter")
    project.command("rename", "export", "writer", "--pipeline", "p").expect(0, "1 dead letter")
    project.run().expect(0)

    assert (before, project.position()) == (40, 40)
    assert sorted(project.ids()) == [n for n in upto(40) if n != 20]
    assert [(letter["block"], letter["destination"]) for letter in project.dead_letters()] == [("reader", "writer")]
    assert {row["block"] for row in project.state_rows()} == {"reader"}
    assert project.spied()[-1]["state"]["bookmarks"]["numbers"]["replication_key_value"] == 40
    project.command("dead-letters", "retry", "p").expect(1)
