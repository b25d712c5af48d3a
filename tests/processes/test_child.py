"""Children are read, written and ended, whatever they do."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from streamline.processes.child import (
    LOG_LINE_BYTES,
    Child,
    ReadPipe,
    WritePipe,
    log_lines,
    private_file,
)
from tests.connectors.singer.running import ENV, PATIENCE, Plain, gone, python, until

pytestmark = pytest.mark.anyio


def start(folder: Path, code: str, *, stdin: bool = False) -> Child:
    return Child.start("fake", python(code), env=ENV, cwd=folder, stdin=stdin)


async def read_all(child: Child) -> bytes:
    parts = []
    while chunk := await child.stdout.receive():
        parts.append(chunk)
    return b"".join(parts)


# -- private files


def test_a_private_file_is_its_owners_only_and_replaced_whole(tmp_path: Path) -> None:
    path = private_file(tmp_path, "tap.json", b"one")
    private_file(tmp_path, "tap.json", b"two")

    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["tap.json"]


# -- pipes


async def test_bytes_come_out_as_they_went_in_however_many_pieces_they_were(tmp_path: Path) -> None:
    parts = [bytes([65 + n % 26]) * (n % 7 * 40_000 + 1) for n in range(200)]
    child = start(tmp_path, "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)", stdin=True)
    stdin = child.stdin
    assert stdin is not None

    async def feed() -> None:
        await stdin.send(parts)
        stdin.close()

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed)
            assert await read_all(child) == b"".join(parts)
        assert await child.wait() == 0
    child.dispose()


async def test_writing_to_a_reader_that_is_gone_says_so(tmp_path: Path) -> None:
    child = start(tmp_path, "", stdin=True)
    assert child.stdin is not None
    with anyio.fail_after(PATIENCE):
        await child.wait()
        with pytest.raises(BrokenPipeError):
            await child.stdin.send([b"x"])
    child.dispose()


async def test_closing_our_end_wakes_whoever_waits_to_write(tmp_path: Path) -> None:
    child = start(tmp_path, "import time; time.sleep(60)", stdin=True)
    stdin = child.stdin
    assert stdin is not None
    seen: list[BaseException] = []

    async def write() -> None:
        try:
            await stdin.send([bytes(8 << 20)])
        except BrokenPipeError as error:
            seen.append(error)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await anyio.sleep(0.1)
            child.dispose()
    assert seen


async def test_closing_our_end_wakes_whoever_waits_to_read(tmp_path: Path) -> None:
    child = start(tmp_path, "import time; time.sleep(60)")
    chunks: list[bytes] = []

    async def read() -> None:
        chunks.append(await child.stdout.receive())

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.sleep(0.05)
            child.stdout.close()
    assert chunks == [b""]
    assert not child.stdout.open
    child.dispose()


async def test_what_a_reader_leaves_in_the_pipe_is_counted(tmp_path: Path) -> None:
    child = start(tmp_path, "import os; os.read(0, 3)", stdin=True)
    assert child.stdin is not None
    with anyio.fail_after(PATIENCE):
        await child.stdin.send([b"abcdefgh"])
        child.stdin.close()
        assert await child.wait() == 0
    assert child.stdin.unread() == 5
    child.dispose()


async def test_a_cancelled_read_loses_nothing() -> None:
    read_end, write_end = os.pipe()
    pipe = ReadPipe(read_end)
    os.write(write_end, b"first")
    assert await pipe.receive() == b"first"
    os.write(write_end, b"second")
    with anyio.CancelScope() as scope:
        scope.cancel()
        chunk = await pipe.receive()
        os.write(write_end, chunk)  # it came although it was cancelled: as good
    assert await pipe.receive() == b"second"
    os.close(write_end)
    assert await pipe.receive() == b""
    pipe.close()


async def test_output_without_end_does_not_keep_others_from_their_turn() -> None:
    pipe = ReadPipe(os.open("/dev/zero", os.O_RDONLY))

    async def read() -> None:
        while await pipe.receive(4096):
            pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    pipe.close()


async def test_a_pipe_that_was_closed_takes_no_more() -> None:
    read_end, write_end = os.pipe()
    pipe = WritePipe(write_end)
    pipe.close()
    pipe.close()
    with pytest.raises(BrokenPipeError):
        await pipe.send([b"x"])
    assert pipe.closed
    pipe.dispose()
    os.close(read_end)


# -- ending


async def test_exit_codes_and_signals_are_told_apart(tmp_path: Path) -> None:
    for code, expected in (("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9), ("", 0)):
        child = start(tmp_path, code)
        with anyio.fail_after(PATIENCE):
            assert await child.wait() == expected
            assert await child.wait() == expected
        child.dispose()


async def test_several_may_wait_for_one_exit(tmp_path: Path) -> None:
    child = start(tmp_path, "import time; time.sleep(0.2)")
    codes: list[int] = []

    async def wait() -> None:
        codes.append(await child.wait())

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(wait)
    assert codes == [0, 0, 0]
    child.dispose()


async def test_term_comes_before_kill(tmp_path: Path) -> None:
    child = start(tmp_path, "import time; print(flush=True); time.sleep(60)")
    with anyio.fail_after(PATIENCE):
        await child.stdout.receive()
        assert await child.end(term_after=0, kill_after=60) == -signal.SIGTERM
    assert child.signalled is signal.SIGTERM
    child.dispose()


async def test_who_ignores_term_is_killed(tmp_path: Path) -> None:
    child = start(tmp_path, "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)")
    with anyio.fail_after(PATIENCE):
        await child.stdout.receive()
        assert await child.end(term_after=0, kill_after=0.1) == -signal.SIGKILL
    child.dispose()


async def test_what_a_child_forked_is_ended_with_it(tmp_path: Path) -> None:
    child = start(
        tmp_path,
        """
        import subprocess, sys
        other = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
        print(other.pid, flush=True)
        """,
    )
    with anyio.fail_after(PATIENCE):
        pid = int(await child.stdout.receive())
        assert await child.wait() == 0
        assert not gone(pid)
        child.dispose()
        await until(lambda: gone(pid))


async def test_a_program_that_is_not_there_leaves_no_pipe_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (what counts is the number)
    with pytest.raises(FileNotFoundError):
        Child.start("fake", ["/no/such/program"], env=ENV, cwd=tmp_path, stdin=True)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


async def test_a_child_that_ran_leaves_no_pipe_open(tmp_path: Path) -> None:
    await anyio.lowlevel.checkpoint()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    child = start(tmp_path, "import sys; sys.stdin.read()", stdin=True)
    assert child.stdin is not None
    child.stdin.close()
    with anyio.fail_after(PATIENCE):
        await child.wait()
    child.dispose()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


# -- logs


async def logged(folder: Path, code: str) -> list[str]:
    child = start(folder, code)
    lines: list[str] = []
    with anyio.fail_after(PATIENCE):
        await log_lines(child.stderr, lines.append, Plain())
    child.dispose()
    return lines


async def test_lines_are_logged_as_they_are_the_last_one_without_its_newline_too(tmp_path: Path) -> None:
    code = r"import os; os.write(2, b'one\r\n\n\xfftwo\nthree')"
    assert await logged(tmp_path, code) == ["one", "", "�two", "three"]


async def test_secrets_are_masked_wherever_a_line_is_cut(tmp_path: Path) -> None:
    # Of one endless line, and at each place around the cut.
    for before in (0, LOG_LINE_BYTES - 20, LOG_LINE_BYTES - 7, LOG_LINE_BYTES - 1, LOG_LINE_BYTES + 3):
        code = f"import os; os.write(2, b'x' * {before} + b'hunter2hunter2' + b'y' * 300_000 + b'\\nnext\\n')"
        lines = await logged(tmp_path, code)
        assert "hunter2" not in "".join(lines), before
        assert not any("hunter"[:size] in "".join(lines) for size in (4, 5, 6)), before
        assert lines[-1] == "next"


async def test_a_line_that_is_too_long_is_cut_once(tmp_path: Path) -> None:
    lines = await logged(tmp_path, "import os; os.write(2, b'x' * 1_000_000 + b'\\nnext\\n')")
    assert len(lines) == 2
    assert lines[0].endswith(" [cut]")
    assert len(lines[0]) < LOG_LINE_BYTES + 100
    assert lines[1] == "next"
