"""Where a pipeline's outputs stand: `.streamline/data/<pipeline>/<block>/`, a child's in `<block>/<number>/`.

The children of a fan-out are written to a staging folder of their run, and take the place of the last run's all at
once when the last of them is done.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from streamline.execution.batch.fanout import Instance, Key

if TYPE_CHECKING:
    from streamline.project.project import Project

_STAGING = ".staging"
_JOURNALS = ".runs"
_CALLS = "calls.json"


class StoredCall(msgspec.Struct, kw_only=True):
    """One of a block's stored outputs, for runs of single blocks. `skipped`: there is none for this call."""

    number: int
    key: Key = ()
    gate: bool | None = None
    items: int | None = None
    described: bool = False
    skipped: bool = False


class StoredCalls(msgspec.Struct, kw_only=True):
    """All of a block's stored outputs. `child`: they are in numbered folders."""

    child: bool
    calls: list[StoredCall]


class Places:
    """The folders of one run of a pipeline.

    Args:
        project: the project.
        pipeline: its uuid.
        run_id: the run.
    """

    def __init__(self, project: Project, pipeline: str, run_id: str) -> None:
        self.root = project.work_dir / "data" / pipeline
        self.run_id = run_id
        self.journals = self.root / _JOURNALS

    @property
    def journal(self) -> Path:
        """The run's journal."""
        return self._journal(self.run_id)

    def _journal(self, run_id: str) -> Path:
        return self.journals / f"{run_id}.jsonl"

    def block(self, uuid: str) -> Path:
        """A block's output, or the folder of its children's."""
        return self.root / uuid

    def staged(self, uuid: str) -> Path:
        """Where the children of a block are gathered while the run goes on."""
        return self.root / _STAGING / self.run_id / uuid

    def prepare(self) -> None:
        """Make the folder, and delete what is left of writers that died and of fan-outs that nobody will finish."""
        from streamline.outputs.store import clear_leftovers

        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        clear_leftovers(self.root)
        staging = self.root / _STAGING
        if staging.is_dir():
            for folder in staging.iterdir():
                # Whatever has a journal may go on one day: a block that is run alone meanwhile takes nothing from it.
                if folder.name != self.run_id and not self._journal(folder.name).exists():
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    clear_leftovers(folder)

    def keep_staged(self, uuid: str, numbers: Container[int]) -> None:
        """Delete what an earlier part of the run has staged of a fan-out, these children excepted."""
        from streamline.outputs.folders import remove

        staged = self.staged(uuid)
        for path in list(staged.iterdir()) if staged.is_dir() else ():
            if not path.name.isdecimal() or int(path.name) not in numbers:
                remove(path)

    def remove(self, uuid: str) -> None:
        """Delete a block's stored output."""
        if self.block(uuid).is_dir():
            shutil.rmtree(self.block(uuid))

    def publish(self, uuid: str) -> None:
        """Put a finished fan-out in the place of the block's last output; its files are on the disk first."""
        from streamline.outputs.folders import publish, sync_tree

        staged, final = self.staged(uuid), self.block(uuid)
        staged.mkdir(mode=0o700, parents=True, exist_ok=True)  # there may have been no items
        sync_tree(staged)
        final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        publish(staged, final, durable=False)

    def remember(self, uuid: str, instances: list[Instance], *, child: bool) -> None:
        """Note what a later run of a single block has to know about the stored outputs of `uuid`."""
        folder = self.block(uuid)
        if not folder.is_dir():
            return
        calls = [
            StoredCall(
                number=one.number,
                key=one.key,
                gate=one.gate,
                items=one.items,
                described=one.described,
                skipped=one.ref is None,
            )
            for one in instances
        ]
        partial = folder / f".{_CALLS}"
        with open(partial, "wb", opener=_private) as file:
            file.write(msgspec.json.encode(StoredCalls(child=child, calls=calls), enc_hook=str))
        partial.rename(folder / _CALLS)

    def remembered(self, uuid: str) -> StoredCalls | None:
        """What `remember` noted; None where the block has never completed."""
        try:
            return msgspec.json.decode((self.block(uuid) / _CALLS).read_bytes(), type=StoredCalls)
        except (OSError, msgspec.DecodeError):
            return None

    def stored(self, uuid: str) -> StoredCalls | None:
        """What there is to test: also the output of a block that failed only its tests."""
        from streamline.outputs.store import read_manifest

        found = self.remembered(uuid)
        if found is None and read_manifest(self.block(uuid)) is not None:
            found = StoredCalls(child=False, calls=[StoredCall(number=0)])
        return found

    def finish(self, *, completed: bool) -> None:
        """The run is over. What a `--resume` would need is kept unless it completed."""
        if completed:
            self.journal.unlink(missing_ok=True)
            shutil.rmtree(self.root / _STAGING / self.run_id, ignore_errors=True)
            with contextlib.suppress(OSError):
                (self.root / _STAGING).rmdir()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
