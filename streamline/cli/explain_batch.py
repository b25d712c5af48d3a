"""What `streamline explain` shows of a batch pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from streamline.cli.app import App
from streamline.cli.output import cell, count, print_json, print_table

if TYPE_CHECKING:
    from streamline.execution.batch.explain import BatchExplanation, BlockWords
    from streamline.pipeline.model import PipelineModel

_DELAYS = 5
"""Delays before tries that are listed; more are told by their number."""


def show_batch_plan(app: App, model: PipelineModel, given: Mapping[str, Any] | None = None, *, as_json: bool) -> int:
    """Make the plan of a batch pipeline and print it. Nothing of the user's runs, nothing is connected to.

    Args:
        given: variables of the run.

    Returns:
        the exit code, 0.

    Raises:
        ConfigError: something can't be done as it is written.
    """
    from streamline.execution.batch.explain import explain_batch
    from streamline.execution.batch.plan import make_plan

    explanation = explain_batch(app.project, make_plan(app.project, model, given))
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(explanation))
    else:
        _show(explanation)
    return 0


def _show(explanation: BatchExplanation) -> None:
    blocks = count(len(explanation.blocks), "block")
    click.echo(f"{explanation.pipeline}: {blocks}, at most {explanation.at_once} at once")
    if not explanation.blocks:
        return
    click.echo()
    print_table(
        ["STEP", "BLOCK", "TYPE", "AFTER", "RUNS", "BY", "OUTPUT"],
        [
            (one.step, one.block, one.type, one.after, _runs(one), one.engine, _output(one, explanation))
            for one in sorted(explanation.blocks, key=lambda one: one.step)
        ],
    )
    click.echo("\nBlocks of one step run side by side; each starts as soon as the blocks before it are done.")
    click.echo(f"Outputs are stored in {cell(explanation.outputs)}/.")
    special = [(one.block, _special(one, explanation)) for one in explanation.blocks]
    if any(lines for _, lines in special):
        click.echo()
    for block, lines in special:
        if lines:
            click.echo(f"{block}: {'; '.join(lines)}")
    if explanation.callbacks:
        click.echo(f"\nTold how the pipeline ended: {', '.join(explanation.callbacks)}")


def _runs(block: BlockWords) -> str:
    return f"once per item of {' × '.join(block.per_item_of)}" if block.per_item_of else "once"


def _output(block: BlockWords, explanation: BatchExplanation) -> str:
    return block.output.removeprefix(f"{explanation.outputs}/") + "/" if block.output else "never stored"


def _special(block: BlockWords, explanation: BatchExplanation) -> list[str]:
    """What is not as it is for most blocks."""
    lines = []
    if block.conditions:
        lines.append(f"runs only if {' and '.join(block.conditions)} {_say(len(block.conditions))} yes")
    if block.dynamic:
        lines.append("the blocks behind it run once per item of its output")
    if block.per_item_of and explanation.max_children is not None:
        more = "fails" if explanation.on_exceeded == "fail" else "takes only so many"
        lines.append(f"at most {explanation.max_children:,} children (with more it {more})")
    if block.per_item_of and explanation.children_at_once is not None:
        lines.append(f"{explanation.children_at_once:,} of them at once")
    if block.gathers:
        lines.append("its outputs are gathered into one list, in the items' order")
    if block.asked_every is not None:
        until = f", for {block.gives_up_after:g} s at most" if block.gives_up_after is not None else ""
        lines.append(f"asked every {block.asked_every:g} s until it says yes{until}")
    if block.writes is not None:
        lines.append(f"writes {cell(block.writes)}")
    if block.retries:
        delays = ", ".join(f"{one:g}" for one in block.retries[:_DELAYS])
        if len(block.retries) > _DELAYS:
            delays += f", … {block.retries[-1]:g}"
        times = count(len(block.retries), "time")
        lines.append(f"if it fails, it is tried again, {times} at most, after {delays} s")
    if block.timeout is not None:
        lines.append(f"stopped after {block.timeout:g} s")
    if block.callbacks:
        lines.append(
            f"{' and '.join(block.callbacks)} {'is' if len(block.callbacks) == 1 else 'are'} told how it ended"
        )
    return lines


def _say(number: int) -> str:
    return "says" if number == 1 else "say"
