"""A tap is a source: all that it printed is given, whatever ends it, and however slowly it is taken."""

from __future__ import annotations

import json
import stat
import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import anyio
import pytest

from streamline.connectors.singer import tap as tap_module
from streamline.connectors.singer.tap import TapFailed
from streamline.flow.items import Item, Position, RawBatch, Schema
from tests.connectors.singer.running import PATIENCE, Taken, gone, kill, left, running, tap, until
from tests.support.failures import fails

pytestmark = pytest.mark.anyio

SOON = 0.3
"""What replaces the patience of the engine in these tests, in seconds."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits ten seconds for what ignores TERM."""
    for name in ("TERM_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(tap_module, name, SOON)
    monkeypatch.setattr(tap_module, "EXIT_SECONDS", 1.0)


async def given(folder: Path, code: str, **more: object) -> Taken:
    """What a tap gives that ends well."""
    taken = Taken()
    with anyio.fail_after(PATIENCE):
        await tap(folder, code, **more).run(taken.emit)
    return taken


async def failed(folder: Path, code: str, failure: str, *names: str, **more: object) -> Taken:
    """What a tap gives that fails: with this code, and a text that shows these names."""
    taken = Taken()
    with anyio.fail_after(PATIENCE), fails(failure, *names):
        await tap(folder, code, **more).run(taken.emit)
    return taken


# -- what it gives


async def test_messages_become_items_in_their_order(tmp_path: Path) -> None:
    taken = await given(
        tmp_path, "schema(); record(1); record(2); state(2); time.sleep(0.05); schema('b'); record(3, 'b')"
    )
    kinds = [kind for kind, _ in groupby(map(type, taken.items))]  # a busy machine cuts batches
    assert kinds == [Schema, RawBatch, Position, Schema, RawBatch]
    assert taken.ids == [1, 2, 3]
    assert taken.positions == [b'{"bookmarks":{"users":{"id":2}}}']


async def test_many_records_come_whole_and_in_order(tmp_path: Path) -> None:
    taken = await given(tmp_path, "schema()\nfor n in range(20_000): record(n, pad='x' * (n % 300))\nstate(20_000)")
    assert taken.ids == list(range(20_000))
    assert taken.count == 20_000


async def test_an_empty_state_is_no_position(tmp_path: Path) -> None:
    taken = await given(tmp_path, """say('{"type": "STATE", "value": {}}'); say('{"type": "STATE", "value": null}')""")
    assert taken.positions == []


async def test_the_last_message_may_lack_its_newline(tmp_path: Path) -> None:
    taken = await given(tmp_path, """say('{"type": "STATE", "value": {"bookmarks": {"a": 1}}}', end='')""")
    assert taken.positions == [b'{"bookmarks":{"a":1}}']


async def test_noise_is_logged_and_masked(tmp_path: Path) -> None:
    log: list[str] = []
    taken = await given(
        tmp_path,
        "say('hello hunter2hunter2'); schema(); record(1); print('to stderr hunter2hunter2', file=sys.stderr)",
        log=log.append,
    )
    assert taken.ids == [1]
    assert sorted(log) == ["hello ***", "to stderr ***"]


# -- how it is started


async def test_it_is_given_private_files_and_nothing_is_left_of_them(tmp_path: Path) -> None:
    code = """
    def about(flag):
        path = sys.argv[sys.argv.index(flag) + 1]
        return [json.load(open(path)), oct(os.stat(path).st_mode & 0o777)]
    say(json.dumps({"type": "STATE", "value": {"bookmarks": {
        flag: about(flag) for flag in ("--config", "--properties", "--catalog", "--state")}}}))
    """
    taken = await given(
        tmp_path,
        code,
        config={"password": "x"},
        catalog={"streams": []},
        catalog_flags=("--catalog", "--properties"),
        state=b'{"bookmarks":{"a":1}}',
    )
    seen = json.loads(taken.positions[0])["bookmarks"]
    assert seen == {
        "--config": [{"password": "x"}, "0o600"],
        "--catalog": [{"streams": []}, "0o600"],
        "--properties": [{"streams": []}, "0o600"],
        "--state": [{"bookmarks": {"a": 1}}, "0o600"],
    }
    assert left(tmp_path) == []


async def test_it_is_given_only_the_options_that_it_takes(tmp_path: Path) -> None:
    code = """say(json.dumps({"type": "STATE", "value": {"options": [w for w in sys.argv if w.startswith("--")]}}))"""
    for options, more in (
        (["--config"], {}),
        (["--config"], {"catalog": {"streams": []}, "catalog_flags": ()}),
        ([], {"takes_config": False}),
    ):
        taken = await given(tmp_path, code, state=None, **more)
        assert json.loads(taken.positions[0])["options"] == options
        assert left(tmp_path) == []


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = tap(tmp_path, "")
    source._command = type(source._command)(
        id="load", name="tap-x", argv=["/no/such/tap"], env={}, cwd=tmp_path, config={}
    )
    with fails("tap.not_started", "/no/such/tap"):
        await source.run(Taken().emit)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("written", "handed_on"),
    [
        ('{**config, "refresh_token": "new"}', [{"refresh_token": "new"}]),
        ("config, indent=8", []),
        ("[config]", []),
    ],
)
async def test_what_it_writes_into_its_config_is_handed_on(
    tmp_path: Path, written: str, handed_on: list[object]
) -> None:
    code = """
    path = sys.argv[sys.argv.index("--config") + 1]
    config = json.load(open(path))
    with open(path, "w") as file: file.write(json.dumps(WRITTEN))
    sys.exit(1)
    """.replace("WRITTEN", written)
    changes: list[object] = []
    source = tap(tmp_path, code, config={"refresh_token": "old"})
    source._on_config_change = changes.append
    with pytest.raises(TapFailed):
        await source.run(Taken().emit)
    assert changes == handed_on


@pytest.mark.parametrize(
    ("replace", "reason"),
    [
        ("os.mkfifo(path)", "(it is not"),
        ("os.symlink(other, path)", "(Too many levels"),
        ("os.symlink('/dev/zero', path)", "(Too many levels"),
        ("os.mkdir(path)", "(it is not"),
        ("print('{', file=open(path, 'w'))", "(Expecting"),
    ],
)
async def test_only_a_regular_file_of_json_is_read_as_its_config(tmp_path: Path, replace: str, reason: str) -> None:
    (tmp_path / "other.json").write_text('{"password": "of another user"}')
    code = f"""
    path, other = sys.argv[sys.argv.index("--config") + 1], {str(tmp_path / "other.json")!r}
    os.unlink(path)
    {replace}
    """
    changes: list[object] = []
    source = tap(tmp_path, "import os\n" + textwrap.dedent(code))
    source._on_config_change = changes.append
    lines: list[str] = []
    source._log = lines.append
    with anyio.fail_after(20):
        await source.run(Taken().emit)
    assert changes == []
    assert "its config file" in lines[-1]
    assert reason in lines[-1]


# -- the live state file


async def test_the_live_state_file_follows_what_is_saved_and_is_gone_with_the_tap(tmp_path: Path) -> None:
    code = """
    path = sys.argv[sys.argv.index("--state") + 1]
    while json.load(open(path)) != {"bookmarks": {"a": 2, "b": 1}}:
        time.sleep(0.01)
    state(2)
    """
    taken = Taken()
    source = tap(tmp_path, code, state=b'{"bookmarks":{"a":1,"b":1}}')
    async with running(lambda: source.run(taken.emit)):
        await until(lambda: (tmp_path / "load.state.json").exists())
        await source.confirm({"a": b"2"})
        assert stat.S_IMODE((tmp_path / "load.state.json").stat().st_mode) == 0o600
        await until(lambda: taken.positions)
        await until(lambda: not left(tmp_path))
        await source.confirm({"a": b"3"})
        assert left(tmp_path) == []


# -- how it fails


async def test_what_a_failing_tap_gave_before_is_given(tmp_path: Path) -> None:
    code = "schema(); record(1); state(1); print('lost hunter2hunter2', file=sys.stderr); sys.exit(3)"
    taken = await failed(tmp_path, code, "tap.exited", "lost ***")
    assert taken.ids == [1]
    assert len(taken.positions) == 1


async def test_a_refusal_of_its_config_is_one_before_the_first_message_only(tmp_path: Path) -> None:
    refusal = "print('CRITICAL Config is missing required keys: host', file=sys.stderr); sys.exit(1)"
    await failed(tmp_path, refusal, "tap.config_refused", "host")
    taken = await failed(tmp_path, f"schema(); record(1); {refusal}", "tap.exited", "host")
    assert taken.ids == [1]


async def test_a_tap_that_is_killed_is_named_with_its_signal(tmp_path: Path) -> None:
    taken = await failed(tmp_path, "schema(); record(1); os.kill(os.getpid(), 9)", "tap.killed", "SIGKILL")
    assert taken.ids == [1]


async def test_what_is_no_message_fails_it_after_what_came_before(tmp_path: Path) -> None:
    code = 'schema(); record(1); state(1); say(\'{"type": "NONSENSE"}\'); record(2); time.sleep(60)'
    taken = await failed(tmp_path, code, "tap.invalid_output", "NONSENSE")
    assert taken.ids == [1]


@pytest.mark.parametrize("code", [0, 1])
async def test_dying_in_the_middle_of_a_line_keeps_the_lines_before(tmp_path: Path, code: int) -> None:
    half = """schema(); record(1); record(2); say('{"type": "RECORD", "stream": "users", "rec', end=''); sys.exit(%d)"""
    taken = await failed(tmp_path, half % code, "tap.output_truncated", f"code {code}", "killed while writing")
    assert taken.ids == [1, 2]


async def test_a_line_that_is_too_long_names_its_stream(tmp_path: Path) -> None:
    code = "schema(); record(1); record(2, pad='x' * 3_000_000)"
    taken = await failed(tmp_path, code, "tap.line_too_long", "users", max_record_bytes=1 << 20)
    assert taken.ids == [1]


async def test_whatever_the_taker_raises_is_what_is_raised(tmp_path: Path) -> None:
    async def refuse(items: Sequence[Item]) -> None:
        raise BrokenPipeError("no more")

    with anyio.fail_after(PATIENCE), pytest.raises(BrokenPipeError):
        await tap(tmp_path, "schema()\nwhile True: record(1)").run(refuse)
    assert left(tmp_path) == []


# -- how it is ended


async def test_a_tap_that_is_asked_to_end_ends_well_with_all_that_it_printed(tmp_path: Path) -> None:
    code = """
    def end(*_):
        record(2); state(2); say('{"type": "RECORD", "stream": "us', end=''); os._exit(0)
    signal.signal(15, end)
    schema(); record(1)
    while True: time.sleep(0.01)
    """
    taken = Taken()
    source = tap(tmp_path, code)
    async with running() as tasks:
        tasks.start_soon(lambda: until_first(taken, source.stop))
        await source.run(taken.emit)
    assert taken.ids == [1, 2]
    assert taken.positions == [b'{"bookmarks":{"users":{"id":2}}}']
    assert source.stopped == "enough"


async def until_first(taken: Taken, stop: object) -> None:
    assert callable(stop)
    await until(lambda: taken.ids)
    stop("enough")
    stop("again")


@pytest.mark.parametrize("bound", ["max_duration", "idle_timeout"])
async def test_bounds_in_time_end_a_tap_that_never_ends_and_ignores_term(tmp_path: Path, bound: str) -> None:
    code = "signal.signal(15, signal.SIG_IGN); schema(); record(1)\nwhile True: time.sleep(1)"
    source = tap(tmp_path, code, **{bound: 1.0})
    taken = Taken()
    with anyio.fail_after(PATIENCE):
        await source.run(taken.emit)
    assert taken.ids == [1]
    assert bound in (source.stopped or "")


async def test_a_tap_that_takes_longer_than_its_timeout_has_failed(tmp_path: Path) -> None:
    taken = await failed(tmp_path, "schema(); record(1); time.sleep(60)", "tap.timed_out", "1 s", timeout=1.0)
    assert taken.ids == [1]


async def test_a_tap_is_not_idle_while_what_it_printed_waits_to_be_taken(tmp_path: Path) -> None:
    code = "schema()\nfor n in range(6): record(n, pad='x' * 300_000)"
    taken = Taken()

    async def slowly(items: Sequence[Item]) -> None:
        if not taken.items:
            await anyio.sleep(2)
        await taken.emit(items)

    source = tap(tmp_path, code, idle_timeout=1.5)
    with anyio.fail_after(PATIENCE):
        await source.run(slowly)
    assert source.stopped is None
    assert taken.ids == list(range(6))


@pytest.mark.parametrize("stopped", [False, True])
async def test_what_a_tap_left_in_the_pipe_is_not_lost_on_a_slow_taker(tmp_path: Path, stopped: bool) -> None:
    # It is long gone when the first of it has been taken.
    code = """
    signal.signal(15, signal.SIG_IGN)
    schema(); record(1)
    time.sleep(0.1)
    record(2, pad="x" * 400_000); record(3); state(3)
    open("printed", "w")
    """
    taken = Taken()
    source = tap(tmp_path, code)

    async def slowly(items: Sequence[Item]) -> None:
        if not taken.items:
            await until((tmp_path / "printed").exists)
            if stopped:
                source.stop("enough")
            await anyio.sleep(4 * SOON)
        await taken.emit(items)

    with anyio.fail_after(PATIENCE):
        await source.run(slowly)
    assert taken.ids == [1, 2, 3]
    assert len(taken.positions) == 1


FORKS = """
import subprocess
def fork(code, **more):
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", code], **more).pid
"""


async def test_a_forked_child_that_holds_the_pipes_ends_with_the_tap(tmp_path: Path) -> None:
    code = FORKS + "pid = fork('import time; time.sleep(60)'); schema(); record(pid); state(1)"
    taken = await given(tmp_path, code)
    with anyio.fail_after(PATIENCE):
        await until(lambda: gone(taken.ids[0]))
    assert len(taken.positions) == 1


async def test_a_daemon_that_holds_the_pipes_does_not_hold_the_run(tmp_path: Path) -> None:
    code = FORKS + "pid = fork('import time; time.sleep(60)', start_new_session=True); schema(); record(pid); state(1)"
    taken = await given(tmp_path, code)
    kill(taken.ids[0])
    assert len(taken.positions) == 1


async def test_what_a_forked_child_prints_after_the_tap_is_given(tmp_path: Path) -> None:
    code = """
    schema(); record(1)
    if os.fork():
        os._exit(0)
    time.sleep(0.02); record(2); state(2)
    """
    taken = await given(tmp_path, code)
    assert taken.ids == [1, 2]
    assert len(taken.positions) == 1


async def test_a_tap_that_closes_its_output_and_lives_on_is_ended(tmp_path: Path) -> None:
    taken = await failed(tmp_path, "schema(); record(1); os.close(1); time.sleep(60)", "tap.killed", "SIGTERM")
    assert taken.ids == [1]


async def test_a_tap_that_floods_its_log_can_be_ended(tmp_path: Path) -> None:
    code = "schema(); record(1)\nwhile True: os.write(2, b'noise\\n' * 10_000)"
    source = tap(tmp_path, code, max_duration=1.0)
    taken = Taken()
    with anyio.fail_after(PATIENCE):
        await source.run(taken.emit)
    assert taken.ids == [1]


async def test_cancelled_it_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    taken = Taken()
    source = tap(tmp_path, "schema(); record(os.getpid())\nwhile True: time.sleep(1)")
    async with running(lambda: source.run(taken.emit)) as tasks:
        await until(lambda: taken.ids)
        tasks.cancel_scope.cancel()
    with anyio.fail_after(PATIENCE):
        await until(lambda: gone(taken.ids[0]))
    assert left(tmp_path) == []
