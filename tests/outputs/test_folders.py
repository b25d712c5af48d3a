"""Readers see an old output or a new one, whole; what dies in between leaves nothing that anybody reads."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from streamline.errors import StreamlineError
from streamline.outputs import folders
from streamline.outputs.store import (
    OutputError,
    clear_leftovers,
    open_output,
    project_key,
    read_manifest,
    sync_tree,
    write_output,
)
from tests.outputs.conftest import Shelf
from tests.support import preloaded

KINDS = {
    "small": {"a": 1},
    "json": ["x" * 10_000],
    "table": pd.DataFrame({"a": [1, 2]}),
    "tuple": (pd.DataFrame({"a": [1]}), {1, 2}),
    "none": None,
}


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("new", KINDS)
@pytest.mark.parametrize("old", KINDS)
@pytest.mark.parametrize("exchange", [True, False])
def test_a_new_output_takes_the_place_of_the_old(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, old: str, new: str, durable: bool, exchange: bool
) -> None:
    if not exchange:  # another system, another file system
        monkeypatch.setattr(folders, "_exchange", lambda: None)
    shelf.write(KINDS[old], durable=not durable)

    output = shelf.write(KINDS[new], durable=durable)

    assert len(output.values()) == output.count()
    assert output.manifest.form == {"none": "none", "tuple": "tuple"}.get(new, "single")
    assert [path.name for path in shelf.pipeline.iterdir()] == ["block"]


def test_a_reader_never_sees_a_mixture(shelf: Shelf) -> None:
    def both(number: int) -> Any:
        return pd.DataFrame({"n": [number] * 1000}), {"n": number, "padding": "x" * 10_000}

    shelf.write(both(0))
    done = threading.Event()

    def write() -> None:
        for number in range(1, 60):
            shelf.write(both(number))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        frame, other = open_output(shelf.folder, shelf.key).value()
        assert set(frame["n"]) == {other["n"]}
        seen.add(other["n"])
    writer.join()

    assert len(seen) > 1


def test_nothing_is_stored_where_nothing_was_written(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "manifest.json").write_text('{"version":1,"run_id"')
    (tmp_path / "half" / "output_0.json").write_text("1")

    for name in ("half", "absent"):
        assert read_manifest(tmp_path / name) is None
        with pytest.raises(OutputError, match="no output is stored here"):
            open_output(tmp_path / name).value()


_WRITER = """
    import sys, itertools, pandas as pd
    from pathlib import Path
    from streamline.outputs.store import write_output, project_key
    root = Path(sys.argv[1])
    def key():
        return project_key(root / ".streamline")
    def values(number):
        yield pd.DataFrame({"n": [number] * 5000})
        yield {"n": number, "padding": "x" * 20_000}
        yield {number}
    print("ready", flush=True)
    for number in itertools.count():
        write_output(root / ".streamline/data/p/block", values(number), run_id="r", secrets_key=key, durable=number % 2)
        write_output(root / f".streamline/data/p/many/{number % 3}", number, run_id="r", secrets_key=key, durable=False)
"""


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(2))
def test_a_killed_writer_leaves_an_old_or_a_new_output(shelf: Shelf, seed: int) -> None:
    moments = random.Random(seed)
    root = shelf.work_dir.parent
    program = root / "writer.py"
    program.write_text(textwrap.dedent(_WRITER))
    environment = {**os.environ, "PYTHONPATH": str(preloaded.REPOSITORY)}
    for _ in range(3):
        writer = preloaded.Piped([sys.executable, str(program), str(root)], cwd=root, env=environment)
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(moments.uniform(0.0, 0.15))
        writer.process.kill()
        writer.finish()

        clear_leftovers(shelf.pipeline)

        for folder in (shelf.folder, *(shelf.pipeline / "many" / str(number) for number in range(3))):
            if read_manifest(folder) is not None:
                value = open_output(folder, shelf.key).value()
                if folder == shelf.folder:
                    assert set(value[0]["n"]) == {value[1]["n"]} == value[2]
        left = [path.name for path in shelf.pipeline.rglob("*") if path.name.startswith(".")]
        assert left == []


def test_a_swap_that_was_broken_off_is_undone(shelf: Shelf) -> None:
    shelf.write("old")
    shelf.folder.rename(shelf.pipeline / ".replaced-block")
    (shelf.pipeline / ".writing-block-1-0").mkdir()
    (shelf.pipeline / "other").mkdir()
    (shelf.pipeline / "other" / ".writing-3-1-0").write_text("{")
    (shelf.pipeline / ".staging").mkdir()

    clear_leftovers(shelf.pipeline)

    assert open_output(shelf.folder, shelf.key).value() == "old"
    assert sorted(path.name for path in shelf.pipeline.iterdir()) == [".staging", "block", "other"]
    assert list((shelf.pipeline / "other").iterdir()) == []


def test_leftovers_of_no_pipeline(tmp_path: Path) -> None:
    clear_leftovers(tmp_path / "absent")

    assert list(tmp_path.iterdir()) == []


def test_only_the_owner_can_read(shelf: Shelf) -> None:
    before = os.umask(0)
    try:
        shelf.write((pd.DataFrame({"a": [1]}).iloc[::-1], {1}, "x" * 10_000))
        write_output(shelf.pipeline / "many" / "0", 1, run_id="r", secrets_key=shelf.key, durable=False)
    finally:
        os.umask(before)

    modes = {path.name: path.stat().st_mode & 0o777 for path in shelf.work_dir.rglob("*")}
    assert set(modes.values()) == {0o700, 0o600}
    assert modes["output_0.parquet"] == modes["0"] == modes["pickle.key"] == 0o600


def test_many_outputs_are_flushed_at_once(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(folders, "sync", flushed.append)
    for number in range(3):
        write_output(shelf.folder / str(number), number, run_id="r", secrets_key=shelf.key, durable=False)
    flushed.clear()

    sync_tree(shelf.folder)

    assert {path.name for path in flushed} == {"0", "1", "2", "block", "p"}
    for number in range(100):
        write_output(shelf.folder / str(number), number, run_id="r", secrets_key=shelf.key, durable=False)
    monkeypatch.setattr(folders, "_sync_file_system", lambda folder: flushed.append(folder) is None)
    flushed.clear()

    sync_tree(shelf.folder)

    assert flushed == [shelf.folder]


def test_syncing_the_real_disk(shelf: Shelf) -> None:
    for number in range(100):
        write_output(shelf.folder / str(number), number, run_id="r", secrets_key=shelf.key, durable=False)

    sync_tree(shelf.folder)

    assert open_output(shelf.folder / "99").value() == 99


def test_a_folder_that_cannot_be_written_is_named(shelf: Shelf) -> None:
    shelf.pipeline.mkdir(parents=True)
    (shelf.pipeline / "file").write_text("")

    for value in ("x", pd.DataFrame({"a": [1]})):
        with pytest.raises(OutputError, match="cannot be stored: Not a directory"):
            write_output(shelf.pipeline / "file" / "b", value, run_id="r", secrets_key=shelf.key, durable=False)


def test_a_full_disk_is_named(shelf: Shelf) -> None:
    # /dev/full takes files of no name; a limit of the process does the same as a full disk.
    code = """
        import resource, signal, sys, numpy as np
        from pathlib import Path
        from streamline.outputs.store import write_output, OutputError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        for value in (np.zeros(100_000), "x" * 1_000_000):
            try:
                write_output(Path(sys.argv[1]), value, run_id="r", secrets_key=lambda: b"k" * 32)
            except OutputError as error:
                print(error.message)
    """
    shelf.pipeline.mkdir(parents=True)

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(shelf.folder)], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines() == ["the output cannot be stored: File too large"] * 2
    assert list(shelf.pipeline.iterdir()) == []


@pytest.mark.parametrize("value", ["x" * 1_000_000, pd.DataFrame({"a": [1]}), 1])
def test_an_output_without_space_names_its_folder(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("streamline.outputs.storage.write_file", fail)
    monkeypatch.setattr("streamline.outputs.store.write_file", fail)
    with pytest.raises(StreamlineError) as caught:
        write_output(shelf.folder, value, run_id="r", secrets_key=shelf.key, durable=False)

    assert (caught.value.code, caught.value.where) == ("disk.full", str(shelf.folder.parent))
    assert list(shelf.folder.parent.glob("*")) == []


def test_one_key_however_many_ask_at_once(tmp_path: Path) -> None:
    keys: list[bytes] = []
    threads = [threading.Thread(target=lambda: keys.append(project_key(tmp_path / "w"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(keys) == 20
    assert len(set(keys)) == 1
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["pickle.key"]


def test_a_key_that_others_can_write_is_refused(tmp_path: Path) -> None:
    project_key(tmp_path)
    (tmp_path / "pickle.key").chmod(0o666)

    with pytest.raises(OutputError, match="can be written by others"):
        project_key(tmp_path)
