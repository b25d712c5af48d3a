"""Rotated tokens: what a plugin wrote back counts until the user changes what he wrote himself."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamline.blocks.connector.rotated_config import keep_written_back, with_written_back
from streamline.project.secrets import Masker
from streamline.state import open_store

WRITTEN = {"token": "t0-configured", "host": "h"}


@pytest.fixture
def kept(tmp_path: Path):
    store = open_store("sqlite:///state.db", tmp_path)
    where = {"pipeline": "p", "block": "load"}
    masker = Masker()

    class Kept:
        def read(self, config: dict) -> dict:
            return with_written_back(config, store, masker, **where)

        def write(self, config: dict, written: dict) -> None:
            keep_written_back(config, written, store, masker, **where)

        mask = masker.mask

    yield Kept()
    store.close()


def test_each_rotation_is_used_by_the_next_run(kept) -> None:
    assert kept.read(WRITTEN) == WRITTEN
    for token in ("t1-rotated", "t2-rotated", "t3-rotated"):
        kept.write(WRITTEN, {**WRITTEN, "token": token})
        assert kept.read(WRITTEN) == {**WRITTEN, "token": token}
        assert token not in kept.mask(f"got {token}")


def test_the_user_s_own_change_wins(kept) -> None:
    kept.write(WRITTEN, {**WRITTEN, "token": "t1-rotated"})
    assert kept.read({**WRITTEN, "token": "t9-new"})["token"] == "t9-new"


def test_what_the_plugin_added_is_kept(kept) -> None:
    kept.write(WRITTEN, {**WRITTEN, "expires": 5})
    assert kept.read(WRITTEN) == {**WRITTEN, "expires": 5}
