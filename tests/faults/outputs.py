"""Random batch pipelines: outputs of all kinds, blocks that fail, kills, resumed runs, changed code.

Each block's stored output is what a call of it returned in the run that stored it. A block receives what its upstream
blocks stored in the same run (in a run of one block: what is stored), whole. A resumed run calls exactly the blocks
that had not completed.
"""

from __future__ import annotations

import contextlib
import pickle
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.matrix import FaultError, judged, kill_after
from tests.faults.outputs_values import ITEMS, KINDS, Note
from tests.support.batch import BatchProject
from tests.support.project import Completed

NAME = "outputs"
TROUBLES = ("raises", "dies", "cannot be stored")


@dataclass
class Made:
    """A block: `kind` is what its output is, `retries` how often it is tried again."""

    uuid: str
    upstream: list[str]
    kind: str
    dynamic: bool
    reduce: bool
    retries: int
    child: bool

    @property
    def type(self) -> str:
        """The type of block."""
        return "transformer" if self.upstream else "data_loader"


@dataclass
class Step:
    """A command.

    Args:
        block: the only block that is run.
        kill: the signal to the runner, and after how many seconds.
        troubles: block → what goes wrong in its next calls.
        edits: block → its kind from now on.
    """

    command: str
    block: str | None
    kill: tuple[int, float] | None
    troubles: dict[str, list[str | None]]
    edits: dict[str, str]


@dataclass
class Case:
    """A pipeline and what is done with it."""

    number: int
    blocks: list[Made]
    steps: list[Step]
    sleep: float = 0.05
    limit: int = 3
    kinds: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        blocks = ", ".join(
            f"{block.uuid}{'*' * block.dynamic}{'!' * block.reduce}({'+'.join(block.upstream)}) {block.kind}"
            for block in self.blocks
        )
        steps = ", ".join(f"{step.command} {step.block or ''} {step.kill or ''} {step.troubles}" for step in self.steps)
        return f"#{self.number} [{blocks}]: {steps}"


def case(number: int, seed: int) -> Case:
    """Return the case of this number: the same for the same seed."""
    dice = random.Random(f"{NAME} {seed} {number}")
    blocks: list[Made] = []
    for place in range(dice.randint(2, 6)):
        above = dice.sample(blocks, min(len(blocks), dice.choice((0, 1, 1, 1, 2))))
        child = any((each.child or each.dynamic) and not each.reduce for each in above)
        dynamic = not child and dice.random() < 0.25
        blocks.append(
            Made(
                uuid=f"b{place}",
                upstream=[each.uuid for each in above],
                kind=dice.choice(list(ITEMS if dynamic else KINDS)),
                dynamic=dynamic,
                reduce=child and dice.random() < 0.5,
                retries=dice.choice((0, 0, 1)),
                child=child,
            )
        )
    steps = [_step(dice, blocks, place) for place in range(dice.randint(2, 4))]
    return Case(number, blocks, steps, limit=dice.choice((1, 3)), sleep=dice.choice((0.0, 0.05, 0.1)))


def _step(dice: random.Random, blocks: list[Made], place: int) -> Step:
    command = "run" if not place else dice.choice(("run", "resume", "resume", "resume", "block"))
    block = dice.choice(blocks) if command == "block" else None
    kill = (dice.choice((9, 9, 15)), dice.uniform(0.1, 1.2)) if dice.random() < 0.3 else None
    troubles = {
        each.uuid: dice.choices((None, *TROUBLES), k=dice.randint(1, 2)) for each in blocks if dice.random() < 0.1
    }
    edits = {each.uuid: dice.choice(list(ITEMS if each.dynamic else KINDS)) for each in blocks if dice.random() < 0.1}
    return Step(command, block.uuid if block else None, kill, troubles, edits if place else {})


class _Machine:
    """One case while it runs."""

    def __init__(self, root: Path, made: Case) -> None:
        self.made = made
        self.project = BatchProject(root)
        self.project.keys["concurrency_config"] = {"block_run_limit": made.limit}
        self.blocks = {block.uuid: block for block in made.blocks}
        self.kinds = {block.uuid: block.kind for block in made.blocks}
        self.seen: set[Path] = set()
        self.notes: list[Note] = []
        for block in made.blocks:
            code = (
                f"from streamline.decorators import {block.type}\nfrom tests.faults.outputs_values import call\n\n\n"
                f"@{block.type}\ndef block(*inputs, **settings):\n    return call({block.uuid!r}, inputs, settings)\n"
            )
            configuration = {**({"dynamic": True} if block.dynamic else {})}
            if block.reduce:
                configuration["reduce_output"] = True
            retry = {"retry_config": {"retries": block.retries, "delay": 0}}
            self.project.block(
                block.uuid, code, type=block.type, upstream=block.upstream, configuration=configuration, **retry
            )

    def act(self, step: Step) -> None:
        """Write what the blocks are going to do."""
        self.kinds |= step.edits
        for block in self.made.blocks:
            before = sum(note.block == block.uuid for note in self.notes)
            act = {
                "kind": self.kinds[block.uuid],
                "dynamic": block.dynamic,
                "sleep": self.made.sleep,
                "troubles": [*[None] * before, *step.troubles.get(block.uuid, [])],
            }
            self.project.write_json(f"acts/{block.uuid}.json", act)

    def take_notes(self) -> list[Note]:
        """Return the notes of calls since the last step."""
        files = set((self.project.root / "notes").glob("*/[!.]*")) - self.seen
        self.seen |= files
        new = [pickle.loads(file.read_bytes()) for file in files]
        self.notes += new
        return new

    def folder(self, uuid: str) -> Path:
        """Return the folder of a block's stored outputs."""
        return self.project.root / ".streamline" / "data" / "p" / uuid

    def stored(self, uuid: str) -> dict[int | None, tuple[str, Any]]:
        """Return a block's stored outputs with the runs that stored them, by child.

        Raises:
            FaultError: one cannot be read.
        """
        from streamline.outputs.store import open_output, read_manifest

        folder = self.folder(uuid)
        if not folder.exists():
            return {}
        numbers = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
        places: Sequence[int | None] = sorted(numbers) if self.blocks[uuid].child else [None]
        outputs = {}
        for number in places:
            path = folder if number is None else folder / str(number)
            manifest = read_manifest(path)
            if manifest is None:
                raise FaultError(f"{uuid}: the output in {path} has no manifest")
            try:
                outputs[number] = (manifest.run_id, open_output(path).value())
            except Exception as error:
                raise FaultError(f"{uuid}: the output in {path} cannot be read: {error!r}") from error
        return outputs

    def check_outputs(self) -> None:
        """Check that each stored output is one that its block has returned."""
        for uuid in self.blocks:
            for child, (run, value) in self.stored(uuid).items():
                calls = [note for note in self.notes if note.block == uuid and note.run == run and note.child == child]
                good = [note for note in calls if not note.failed]
                if not any(same(received(note), value) for note in good):
                    raise FaultError(
                        f"{uuid} {child}: the stored output of run {run} is {value!r}, its calls returned "
                        f"{[note.returned for note in good]!r}"
                    )

    def check_inputs(self, new: Sequence[Note], *, alone: bool) -> None:
        """Check that blocks were given what is stored now."""
        for note in new:
            for uuid, given in zip(self.blocks[note.block].upstream, note.inputs, strict=True):
                outputs = self.stored(uuid)
                if not alone and {run for run, _ in outputs.values()} != {note.run}:
                    if not self.blocks[uuid].child:
                        raise FaultError(f"{note.block} ran, though {uuid} has stored nothing in this run: {outputs}")
                    # A child of a fan-out that failed as a whole: its output waits beside the one before.
                    calls = [each for each in self.notes if each.block == uuid and each.run == note.run]
                    outputs = {each.child: (each.run, received(each)) for each in calls if not each.failed}
                if not any(same(value, given) for value in self.offers(uuid, [value for _, value in outputs.values()])):
                    raise FaultError(f"{note.block} {note.child} was given {given!r} of {uuid}, stored is {outputs!r}")

    def offers(self, uuid: str, values: list[Any]) -> list[Any]:
        """Return the values of which each call of a downstream block gets one."""
        import pandas as pd

        block = self.blocks[uuid]
        if block.child:
            bare = [value[0] if type(value) is list and len(value) == 1 else value for value in values]
            return [bare] if block.reduce else bare
        if not block.dynamic:
            return values
        (value,) = values
        if isinstance(value, pd.DataFrame):
            return [value.iloc[number] for number in range(len(value))]
        metadata = len(value) == 2 and all(isinstance(each, list) for each in value)
        return list(value[0]) if metadata else list(value)

    def needed(self, uuid: str) -> int | None:
        """Return how many calls of a block a complete run needs, where that is simple."""
        block = self.blocks[uuid]
        if not block.child:
            return 1
        if len(block.upstream) != 1 or not self.blocks[block.upstream[0]].dynamic:
            return None
        return len(self.offers(block.upstream[0], [value for _, value in self.stored(block.upstream[0]).values()]))

    def ancestors(self, uuid: str) -> set[str]:
        """Return the blocks that a block depends on."""
        upstream = self.blocks[uuid].upstream
        return set(upstream).union(*map(self.ancestors, upstream))


def suffer(root: Path, made: Case) -> str:
    """Run the case, check after each step; return what became of it.

    Raises:
        FaultError: something was wrong; the message says what.
    """
    machine = _Machine(root, made)
    project = machine.project
    ends = []
    newest: dict[str, str] | None = None
    run = None
    with judged(project):
        for number, step in enumerate(made.steps, 1):
            if step.command == "resume" and newest is None:
                continue
            machine.act(step)
            words = {"run": [], "resume": ["--resume"], "block": ["--block-uuid", step.block or ""]}[step.command]
            completed, killed = _command(project, words, step.kill)
            new = machine.take_notes()
            try:
                _check(machine, step, completed, new, newest=newest, run=run, killed=killed)
            except FaultError as error:
                raise FaultError(f"step {number}: {error}\n{completed}") from None
            ends.append(completed.code)
            newest = None
            if step.command != "block" and completed.code != 0 and new:
                newest, run = project.statuses(new[0].run), new[0].run
        return f"{sum(code == 0 for code in ends)} of {len(ends)} commands completed"


def _command(project: BatchProject, words: Sequence[str], kill: tuple[int, float] | None) -> tuple[Completed, bool]:
    running = project.start("run", "p", *words)
    killed = kill is not None and kill_after(running, *kill)
    completed = running.finish()
    project.assert_nothing_left(completed)
    return completed, killed


def _check(
    machine: _Machine,
    step: Step,
    completed: Completed,
    new: list[Note],
    *,
    newest: dict[str, str] | None,
    run: str | None,
    killed: bool,
) -> None:
    machine.check_outputs()
    machine.check_inputs(new, alone=step.command == "block")
    refused = step.command == "block" and completed.code == 2
    if not killed and completed.code not in (0, 1) and not refused:
        raise FaultError(f"exit code {completed.code}")
    if not killed and not step.troubles and completed.code and not refused:
        raise FaultError(f"exit code {completed.code}, though nothing went wrong")
    if step.command == "block" and {note.block for note in new} - {step.block}:
        raise FaultError(f"{ {note.block for note in new} } ran, not only {step.block}")
    if len({note.run for note in new}) > 1:
        raise FaultError(f"one run had several ids: { {note.run for note in new} }")
    if step.command == "resume" and newest is not None:
        _check_resumed(machine, new, newest, run)
    if completed.code or step.command == "block":
        return
    ids = {stored_by for uuid in machine.blocks for stored_by, _ in machine.stored(uuid).values()}
    if len(ids) > 1:
        raise FaultError(f"a completed run leaves outputs of several runs: {ids}")
    for uuid in machine.blocks:
        needed = machine.needed(uuid)
        if needed is not None and len(machine.stored(uuid)) != needed:
            raise FaultError(f"{uuid} has {len(machine.stored(uuid))} outputs, not {needed}")
    data = machine.project.root / ".streamline" / "data"
    if left := [path for path in data.rglob(".*-*") if path.is_dir()]:
        raise FaultError(f"temporary folders were not deleted: {left}")


def _check_resumed(machine: _Machine, new: list[Note], newest: dict[str, str], run: str | None) -> None:
    if {note.run for note in new} - {run}:
        raise FaultError(f"resumed as {new[0].run}, not as {run}")
    done = {uuid for uuid, status in newest.items() if status == "completed"}
    kept = {uuid for uuid in done if machine.ancestors(uuid) <= done}
    if again := kept & {note.block for note in new}:
        raise FaultError(f"{again} had completed and ran again")


def received(note: Note) -> Any:
    """Return what a downstream block gets of what a call returned."""
    value = note.returned
    return list(value) if note.is_iterator or isinstance(value, tuple) else value


def same(left: Any, right: Any) -> bool:
    """Whether two values are the same in type and content, frames included."""
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from tests.outputs import exactly

    if type(left) is not type(right):
        return False
    if isinstance(left, pd.DataFrame):
        with contextlib.suppress(AssertionError):
            exactly.assert_same_frame(left, right)
            return True
        return False
    if isinstance(left, pd.Series):
        with contextlib.suppress(AssertionError):
            exactly.assert_same_series(left, right)
            return True
        return False
    if isinstance(left, pl.DataFrame):
        return bool(left.schema == right.schema and left.equals(right))
    if isinstance(left, pa.Table):
        return bool(left.equals(right, check_metadata=True))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        return bool(exactly.same(left, right))
    return bool(exactly.same(left, right))
