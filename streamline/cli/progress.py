"""What a run shows while it goes on: a live table in a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio

from streamline.cli.output import count, is_terminal, say
from streamline.execution.integration.run import Listener

if TYPE_CHECKING:
    from rich.console import Group

    from streamline.execution.integration.attempt import Outcome
    from streamline.execution.integration.context import RunContext
    from streamline.execution.integration.plan import Plan

LINE_SECONDS = 10.0
"""Seconds between two lines in a pipe."""

LIVE_SECONDS = 0.25


class Display(Listener):
    """Shows a run on stdout, or nothing of it if `quiet`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def planned(self, plan: Plan, context: RunContext) -> None:
        if self._quiet:
            return
        say(f"{plan.pipeline}: run {context.run_id}")
        for source in plan.sources.values():
            sinks = ", ".join(f"{name} ({plan.sinks[name].plugin.name})" for name in plan.paths[source.id].all_sinks())
            what = count(len(source.selected), "stream") if source.catalog is not None else "all that it sends"
            say(f"{source.id} ({source.plugin.name}): {what} -> {sinks}")
            for note in source.notes:
                say(context.masker.mask(f"  note: {note}"))

    def attempt_failed(self, outcomes: list[Outcome], delay: float | None) -> None:
        for outcome in outcomes:
            then = f"; trying again in {delay:g} s" if delay is not None else ""
            first = str(outcome.error).partition("\n")[0]
            say(f"{outcome.group.id} failed: {first}{then}", err=True)

    async def watch(self, context: RunContext) -> None:
        if self._quiet:
            return
        if is_terminal():
            await self._live(context)
        else:
            await self._lines(context)

    async def _lines(self, context: RunContext) -> None:
        progress = context.progress
        before, then = 0, time.monotonic()
        while True:
            await anyio.sleep(LINE_SECONDS)
            now, total = time.monotonic(), progress.total_read
            rate = (total - before) / (now - then)
            saved = max(progress.saved.values(), default=None)
            proof = f"last position saved {now - saved:.0f} s ago" if saved is not None else "no position saved yet"
            say(f"{count(total, 'record')} read, {rate:,.0f} a second, {proof}")
            before, then = total, now

    async def _live(self, context: RunContext) -> None:
        from rich.console import Console
        from rich.live import Live

        before, then = 0, time.monotonic()
        rate = 0.0
        # Not rich's own refreshing thread: the event loop is the one place where the counts change.
        with Live(console=Console(), auto_refresh=False, transient=True) as live:
            while True:
                await anyio.sleep(LIVE_SECONDS)
                now, total = time.monotonic(), context.progress.total_read
                if now - then >= 1.0:
                    rate = (total - before) / (now - then)
                    before, then = total, now
                live.update(_shown(context, rate), refresh=True)


def _shown(context: RunContext, rate: float) -> Group:
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    progress = context.progress
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in ("block", "stream", "read", "written"):
        table.add_column(name, justify="right" if name in ("read", "written") else "left")
    written = {table_name: number for (_, table_name), number in progress.tables.items()}
    for (block, stream), counted in list(progress.streams.items())[:20]:
        done = written.get(stream)
        table.add_row(block, stream, f"{counted.read:,}", f"{done:,}" if done is not None else "")
    saved = max(progress.saved.values(), default=None)
    proof = f"last proof {time.monotonic() - saved:.0f} s ago" if saved is not None else "no proof yet"
    # Not the table's caption: that is wrapped to the table's width, which follows the names in it.
    totals = f"{progress.total_read:,} records, {rate:,.0f}/s, {progress.seconds:.0f} s, {proof}"
    return Group(table, Text(totals, style="dim", no_wrap=True))
