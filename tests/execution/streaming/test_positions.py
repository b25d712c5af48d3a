"""In which order a streaming run saves positions and dead letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from streamline.errors import StreamlineError
from streamline.execution.streaming.positions import StreamPositions
from streamline.flow.items import BadRecord
from streamline.state.store import DeadLetter

BAD = BadRecord("t", b"{}", "odd", "decode")
LETTER = DeadLetter(pipeline="p", block="load", stream="t", run_id="r", record="{}", error="odd", stage="decode")


class World:
    """A consumer group, a place for letters, taps and the state store, and what they were told, in order."""

    def __init__(self, *, group: bool, exactly_once: bool = False, tap: bool = False, owned: bool = True) -> None:
        self.told: list[str] = []
        self.fails: set[str] = set()
        self.owned = owned
        plan: Any = SimpleNamespace(
            pipeline="p",
            exactly_once=exactly_once,
            sources={"load": SimpleNamespace(traits=SimpleNamespace(keeps_positions=group))},
            sinks_of=lambda source: ["export"],
        )
        singer: Any = SimpleNamespace(
            before_save=lambda: self._tell("schemas"), is_tap=lambda source: True, save=self._save_tap
        )
        store: Any = SimpleNamespace(save=self._save)
        self.positions = StreamPositions(
            store,
            plan,
            "r",
            {"load": self},  # type: ignore[dict-item]
            SimpleNamespace(store=self._keep),  # type: ignore[arg-type]
            singer=singer if tap else None,
            clock=lambda: 0.0,
        )

    def _tell(self, what: str) -> None:
        if what in self.fails:
            raise StreamlineError(f"no {what}")
        self.told.append(what)

    def _keep(self, source: str, records: Sequence[BadRecord]) -> Sequence[DeadLetter]:
        self._tell("letters")
        return [LETTER]

    def _save(self, pipeline: str, block: str, run_id: str, bookmarks: Any, letters: Any = (), **more: Any) -> None:
        self._tell("+".join([*["rows" for _ in letters[:1]], *["bookmarks" for _ in bookmarks[:1]]]))

    def _save_tap(
        self, source: str, parts: Mapping[str, bytes], letters: Sequence[DeadLetter], state: Any
    ) -> Mapping[str, bytes]:
        self._tell("tap")
        return parts

    def commit(self, parts: Mapping[str, bytes]) -> Mapping[str, bytes]:
        self._tell("commit")
        return parts if self.owned else {}

    def shown(self, parts: Mapping[str, bytes]) -> Mapping[str, bytes]:
        return parts

    def committed(self, parts: Mapping[str, bytes]) -> Mapping[str, bytes]:
        return parts

    def save(self) -> Mapping[str, bytes]:
        return self.positions.save("load", {"t/0": b'{"offset":1}'}, [BAD])


def test_a_group_commits_when_letters_are_durable() -> None:
    world = World(group=True)
    assert world.save().keys() == {"t/0"}
    assert world.told == ["letters", "rows", "commit", "bookmarks"]


@pytest.mark.parametrize("failing", ["letters", "rows"])
def test_a_group_does_not_commit_what_is_behind_letters_that_are_not_kept(failing: str) -> None:
    world = World(group=True)
    world.fails.add(failing)
    with pytest.raises(StreamlineError):
        world.save()
    assert "commit" not in world.told


def test_what_a_group_could_not_commit_is_not_shown_as_saved() -> None:
    world = World(group=True, owned=False)
    assert world.save() == {}
    assert "bookmarks" not in world.told


def test_in_a_transaction_offsets_are_committed_already() -> None:
    world = World(group=True, exactly_once=True)
    assert world.save().keys() == {"t/0"}
    assert "commit" not in world.told


def test_positions_in_the_state_store_are_saved_with_the_letters_before_them() -> None:
    world = World(group=False)
    world.save()
    assert world.told == ["letters", "rows+bookmarks"]


def test_schemas_are_kept_before_the_bookmarks_of_a_tap() -> None:
    world = World(group=False, tap=True)
    world.save()
    assert world.told == ["letters", "schemas", "tap"]
    world.fails.add("schemas")
    with pytest.raises(StreamlineError):
        world.save()
    assert world.told.count("tap") == 1
