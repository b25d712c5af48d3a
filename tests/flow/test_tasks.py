"""Work that is cancelled the way anyio does it, whoever cancels it."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from streamline.flow.tasks import keep_shields


def test_a_native_cancellation_breaks_no_shield() -> None:
    told: list[str] = []
    begun = asyncio.Event()

    async def work() -> str:
        try:
            begun.set()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
                told.append("saved")
        return "never"

    async def main() -> None:
        task = asyncio.ensure_future(keep_shields(work()))
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0.01)
        task.cancel()  # a third Ctrl-C
        with pytest.raises(asyncio.CancelledError):
            await task
        told.append("ended")

    asyncio.run(main())
    assert told == ["saved", "ended"]


def test_what_the_work_returns_or_raises_is_passed_on() -> None:
    async def fails() -> None:
        raise OSError("disk full")

    async def works() -> int:
        return 7

    assert asyncio.run(keep_shields(works())) == 7
    with pytest.raises(OSError, match="disk full"):
        asyncio.run(keep_shields(fails()))


def test_a_cancellation_that_comes_too_late_is_not_lost() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.05)

    async def main() -> None:
        task = asyncio.ensure_future(keep_shields(work()))
        await begun.wait()
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
