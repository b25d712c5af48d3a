"""Pickles are read by the project that wrote them, and by nobody else; what cannot be pickled is named."""

from __future__ import annotations

import dataclasses
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from streamline.outputs.store import OutputError, open_output, write_output
from tests.outputs.conftest import Shelf
from tests.support.failures import fails


@dataclasses.dataclass
class Model:
    weights: Any
    name: str = "m"


def test_objects_come_back(shelf: Shelf) -> None:
    back = shelf.write(Model(np.arange(3.0))).value()

    assert type(back) is Model
    assert back.weights.tolist() == [0.0, 1.0, 2.0]
    back.weights[0] = 9  # a fresh, writable array


def test_large_arrays(shelf: Shelf) -> None:
    array = np.arange(3_000_000)

    back = shelf.write({"a": array}).value()

    assert np.array_equal(back["a"], array)
    assert pickle.loads((shelf.folder / "output_0.pkl").read_bytes())["a"].shape == array.shape


class Exploit:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("the pickle was read",))


@pytest.mark.parametrize("attack", ["whole", "changed", "cut", "empty"])
def test_a_pickle_of_others_is_not_read(shelf: Shelf, attack: str) -> None:
    output = shelf.write({1, 2})
    file = shelf.folder / "output_0.pkl"
    data = bytearray(file.read_bytes())
    evil = pickle.dumps(Exploit())
    data[: len(evil)] = evil
    file.write_bytes({"whole": evil, "changed": bytes(data), "cut": bytes(data[:20]), "empty": b""}[attack])

    with fails("output.wrong_project"):
        output.value()


def test_a_project_does_not_read_anothers(shelf: Shelf, tmp_path: Path) -> None:
    shelf.write({1, 2})
    other = Shelf(tmp_path / "other")
    other.pipeline.mkdir(parents=True)
    shelf.folder.rename(other.folder)

    with fails("output.wrong_project"):
        open_output(other.folder).value()


def test_outside_of_a_project_it_is_not_read(shelf: Shelf, tmp_path: Path) -> None:
    shelf.write({1, 2})
    shelf.folder.rename(tmp_path / "elsewhere")

    with fails("output.wrong_project"):
        open_output(tmp_path / "elsewhere").value()


def test_objects_of_frames_are_signed_too(shelf: Shelf) -> None:
    output = shelf.write(pd.DataFrame({"a": [1], "o": [{1}]}))
    (shelf.folder / "output_0.objects.pkl").write_bytes(pickle.dumps(Exploit()))

    with fails("output.wrong_project"):
        output.value()


def test_the_key_is_found_in_the_project(shelf: Shelf) -> None:
    shelf.write({1, 2})

    assert open_output(shelf.folder).value() == {1, 2}


def test_no_key_is_made_where_nothing_is_pickled(shelf: Shelf) -> None:
    shelf.write((1, "a", [1.5], pd.DataFrame({"a": [1]})))

    assert not (shelf.work_dir / "pickle.key").exists()


def test_a_class_that_is_gone(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    output = shelf.write(Model(1))
    monkeypatch.delattr("tests.outputs.test_pickled.Model")

    with fails("output.class_missing", "output_0.pkl", "Model") as caught:
        output.value()

    assert "keep them in a module" in (caught.value.hint or "")


class Refuses:
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


class RefusesByTheSystem:
    def __reduce__(self) -> Any:
        raise OSError(5, "no such device")


def _local() -> Any:
    class Local:
        pass

    return Local()


def _deep() -> Any:
    value: Any = {1}
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"a": [1, {"b": threading.Lock()}]},
            r"output 0: a dict; at \['a'\]\[1\]\['b'\]: cannot pickle '_thread.lock'",
        ),
        (Model(threading.Lock()), r"a tests\.Model; at \.weights: cannot pickle"),
        (lambda: 1, r"output 0: a function: .*<lambda>"),
        (_local(), r"a tests\._local\.<locals>\.Local: .*local object"),
        (Refuses(), r"a tests\.Refuses: not me"),
        ([RefusesByTheSystem()], r"a list; at \[0\]: .*no such device"),
        (_deep(), r"a list: it is nested too deeply"),
        ((1, threading.Lock()), r"output 1: a _thread.lock: cannot pickle"),
        (open("/dev/null"), r"TextIOWrapper: cannot pickle"),  # noqa: SIM115
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_stored_is_named(shelf: Shelf, value: Any, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        shelf.write(value)

    assert list(shelf.pipeline.iterdir()) == []


def test_interrupts_are_not_swallowed(shelf: Shelf) -> None:
    class Interrupted:
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_output(shelf.folder, Interrupted(), run_id="r", secrets_key=shelf.key)

    assert list(shelf.pipeline.iterdir()) == []
