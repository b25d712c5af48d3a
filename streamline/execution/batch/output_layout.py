"""The folders of a pipeline's outputs: `.streamline/data/<pipeline>/<block>/`, a child's in `<block>/<number>/`.

The children of a fan-out are written to a staging folder of their run, and replace the last run's all at once when the
last of them is done.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from streamline.execution.batch.fanout import CallFacts, Instance
from streamline.outputs.folders import publish, remove, sync_tree
from streamline.outputs.store import clear_leftovers, read_manifest
from streamline.project.files import replace_file

if TYPE_CHECKING:
    from streamline.project.project import Project

_STAGING = ".staging"
_JOURNALS = ".runs"
_CALLS = "calls.json"


class StoredCall(CallFacts, kw_only=True):
    """One of a block's stored outputs, for runs of single blocks. `skipped`: the call has no output."""

    skipped: bool = False


class StoredCalls(msgspec.Struct, kw_only=True):
    """All stored outputs of a block. `child`: they are in numbered folders."""

    child: bool
    calls: list[StoredCall]


class OutputLayout:
    """The folders of one run of a pipeline."""

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
        """Return the folder of a block's output, or of its children's outputs."""
        return self.root / uuid

    def call(self, uuid: str, number: int, *, child: bool) -> Path:
        """Return the folder of the output of one of a block's calls."""
        return self.block(uuid) / str(number) if child else self.block(uuid)

    def staged(self, uuid: str) -> Path:
        """Return the staging folder for the children of a block."""
        return self.root / _STAGING / self.run_id / uuid

    def prepare(self) -> None:
        """Make the folder, and delete the leftovers of killed writers and of fan-outs that cannot be resumed."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        clear_leftovers(self.root)
        staging = self.root / _STAGING
        if staging.is_dir():
            for folder in staging.iterdir():
                # A run with a journal may be resumed; its staging folder is kept.
                if folder.name != self.run_id and not self._journal(folder.name).exists():
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    clear_leftovers(folder)

    def keep_staged(self, uuid: str, numbers: Container[int]) -> None:
        """Delete what an earlier part of the run has staged of a fan-out, except these children."""
        staged = self.staged(uuid)
        for path in list(staged.iterdir()) if staged.is_dir() else ():
            if not path.name.isdecimal() or int(path.name) not in numbers:
                remove(path)

    def remove(self, uuid: str) -> None:
        """Delete a block's stored output."""
        if self.block(uuid).is_dir():
            shutil.rmtree(self.block(uuid))

    def publish(self, uuid: str, *, child: bool) -> None:
        """Replace the block's last output with what is staged, whose files are synced to disk first."""
        staged, final = self.staged(uuid), self.block(uuid)
        if child:
            staged.mkdir(mode=0o700, parents=True, exist_ok=True)  # there may have been no items
        else:
            staged = staged / "0"
            if not staged.is_dir():
                return
        sync_tree(staged)
        final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        publish(staged, final, durable=False)

    def remember(self, uuid: str, instances: list[Instance], *, child: bool) -> None:
        """Save what a later run of a single block needs to know about the stored outputs of `uuid`."""
        folder = self.block(uuid)
        if not folder.is_dir():
            return
        calls = [StoredCall(skipped=instance.ref is None, **instance.facts()) for instance in instances]
        data = msgspec.json.encode(StoredCalls(child=child, calls=calls), enc_hook=str)
        replace_file(folder / _CALLS, data, mode=0o600)

    def remembered(self, uuid: str) -> StoredCalls | None:
        """Return what `remember` saved; None if the block has never completed."""
        try:
            return msgspec.json.decode((self.block(uuid) / _CALLS).read_bytes(), type=StoredCalls)
        except (OSError, msgspec.DecodeError):
            return None

    def stored(self, uuid: str) -> StoredCalls | None:
        """Return the stored outputs that can be tested, including that of a block that failed only its tests."""
        stored = self.remembered(uuid)
        if stored is None and read_manifest(self.block(uuid)) is not None:
            stored = StoredCalls(child=False, calls=[StoredCall(number=0)])
        return stored

    def finish(self, *, completed: bool) -> None:
        """End the run. What `--resume` needs is kept unless the run completed."""
        if completed:
            self.journal.unlink(missing_ok=True)
            shutil.rmtree(self.root / _STAGING / self.run_id, ignore_errors=True)
            with contextlib.suppress(OSError):
                (self.root / _STAGING).rmdir()


def rename_output(project: Project, pipeline: str, old: str, new: str) -> None:
    """Give a block's stored output to its new name; downstream blocks can still be run on it."""
    layout = OutputLayout(project, pipeline, "")
    layout.remove(new)
    if layout.block(old).is_dir():
        layout.block(new).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        layout.block(old).rename(layout.block(new))
    for path in layout.root.rglob(_CALLS):
        uuid = str(path.parent.relative_to(layout.root))
        stored = layout.remembered(uuid)
        if stored is None:
            continue
        for call in stored.calls:
            call.key = tuple((new if axis == old else axis, index) for axis, index in call.key)
        replace_file(path, msgspec.json.encode(stored, enc_hook=str), mode=0o600)


def remove_output(project: Project, pipeline: str, uuid: str) -> bool:
    """Delete a block's stored output; return whether there was one."""
    layout = OutputLayout(project, pipeline, "")
    stored = layout.block(uuid).is_dir()
    layout.remove(uuid)
    return stored
