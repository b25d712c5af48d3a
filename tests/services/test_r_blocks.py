"""R blocks, run by the system's Rscript."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from streamline.blocks.python.function import UserError
from streamline.blocks.r import block as r
from streamline.blocks.r.check import check_block
from streamline.errors import ConfigError, StreamlineError
from tests.blocks.call_inputs import Calls, Given
from tests.services.require import missing
from tests.support.failures import refuses

pytestmark = pytest.mark.services

FOLDERS = {"data_loader": "data_loaders", "transformer": "transformers", "data_exporter": "data_exporters"}


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    if shutil.which("Rscript") is None:
        missing("R is not installed: install the system's 'r-base-core'")
    return Calls(tmp_path / "shop")


def run(calls: Calls, type: str, code: str, *inputs: Given, **given: Any) -> Any:
    file = calls.write(f"{FOLDERS.get(type, 'custom')}/it.R", code)
    block = calls.block(type, "r", file)
    check_block(calls.project, block)
    return r.run(calls.call(block, *inputs, **given))


FRAME = pd.DataFrame(
    {
        "whole": [1, 2, 3],
        "missing": pd.array([1, None, -3], dtype="Int64"),
        "wide": [2**40, 1, -(2**40)],
        "real": [0.1, 1e300, -0.0],
        "flag": pd.array([True, None, False], dtype="boolean"),
        "text": ['say "hi",\nthen\ttab \\', "é😀 NA", None],
        "NA": ["NA", "", " "],
        "grade": pd.Categorical(["b", None, "a"], categories=["b", "unused", "a"], ordered=True),
        "day": [dt.date(2024, 2, 29), None, dt.date(1900, 1, 1)],
        "time": pd.to_datetime(["2024-01-01 10:00:00.123456", None, "1950-01-01 00:00:00"], format="ISO8601"),
        "zoned": pd.to_datetime(["2024-03-31T00:30:00Z", None, "2024-07-01T00:00:00Z"]).tz_convert("Europe/Berlin"),
        "span": pd.to_timedelta(["1 days 00:00:01.5", None, "-2h"]),
    }
)


def test_a_frame_goes_through_r_as_it_came(calls: Calls) -> None:
    back = run(calls, "transformer", "transform <- function(df_1, ...) {\n  df_1\n}\n", Given("up", FRAME))
    expected = FRAME.astype(
        {"wide": float, "time": back.time.dtype, "zoned": back.zoned.dtype, "span": back.span.dtype}
    )
    pd.testing.assert_frame_equal(back, expected)
    assert str(back.zoned.dtype.tz) == "Europe/Berlin"


def test_what_r_sees(calls: Calls) -> None:
    code = """
    transform <- function(df_1) {
      stopifnot(
        is.integer(df_1$whole), is.na(df_1$missing[2]), is.double(df_1$wide), df_1$wide[1] == 2^40,
        is.na(df_1$flag[2]), df_1$text[2] == "\\u00e9\\U1F600 NA", is.na(df_1$text[3]), !is.na(df_1[["NA"]][1]),
        is.ordered(df_1$grade), identical(levels(df_1$grade), c("b", "unused", "a")),
        inherits(df_1$day, "Date"), format(df_1$day[1]) == "2024-02-29",
        format(df_1$zoned[1], "%H:%M %Z") == "01:30 CET", format(df_1$time[1], "%H:%M") == "10:00",
        as.numeric(df_1$span[3], units = "hours") == -2
      )
      TRUE
    }
    """
    assert run(calls, "transformer", code, Given("up", FRAME)) is True


def test_what_r_makes(calls: Calls) -> None:
    code = """
    load_data <- function() {
      data.frame(
        n = 1:3, missing = c(1L, NA, 3L), x = c(0.1, NA, Inf), yes = c(TRUE, NA, FALSE),
        s = c("a\\nb", NA, "'q'"), f = factor(c("lo", NA, "hi"), levels = c("lo", "hi")),
        d = as.Date(c("2024-02-29", NA, "1969-12-31")),
        t = as.POSIXct("2024-06-01 12:00:00", tz = "America/New_York") + c(0, NA, 0.25),
        plain = as.POSIXct("2024-06-01 12:00:00"),
        check.names = FALSE
      )
    }
    """
    frame = run(calls, "data_loader", code)
    assert list(frame.columns) == ["n", "missing", "x", "yes", "s", "f", "d", "t", "plain"]
    assert str(frame.n.dtype) == "int64"
    assert str(frame.missing.dtype) == "Int64"
    assert str(frame.yes.dtype) == "boolean"
    assert list(frame.f.cat.categories) == ["lo", "hi"]
    assert frame.d.tolist() == [dt.date(2024, 2, 29), None, dt.date(1969, 12, 31)]
    assert frame.t[2] == pd.Timestamp("2024-06-01 12:00:00.25", tz="America/New_York")
    assert frame.plain[0] == pd.Timestamp("2024-06-01 12:00:00")
    assert frame.s[0] == "a\nb"
    assert pd.isna(frame.s[1])


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("NULL", None),
        ("42L", 42),
        ("c(1.5, NA)", [1.5, None]),
        ("c(a = 1L, b = 2L)", {"a": 1, "b": 2}),
        ("list(1L, 'x', NULL, list(y = TRUE))", [1, "x", None, {"y": True}]),
        ("character()", []),
        ("'\\u00fc'", "ü"),
        ("as.raw(1:3)", b"\x01\x02\x03"),
        ("Sys.Date() - Sys.Date()", dt.timedelta(0)),
    ],
)
def test_other_values(calls: Calls, code: str, value: Any) -> None:
    assert run(calls, "custom", f"custom <- function() {code}\n") == value


def test_lists_of_frames_and_matrices(calls: Calls) -> None:
    value = run(calls, "data_loader", "load_data <- function() list(cars = mtcars[1:2, 1:2], m = matrix(1:4, 2))\n")
    assert value["cars"].to_dict("list") == {"mpg": [21.0, 21.0], "cyl": [6.0, 6.0]}
    assert value["m"].to_dict("list") == {"V1": [1, 2], "V2": [3, 4]}


def test_several_inputs_by_order_by_name_and_without_gates(calls: Calls) -> None:
    code = 'transform <- function(df_1, orders) sprintf("%d %d", nrow(df_1), nrow(orders))\n'
    inputs = [
        Given("ready", True, type="sensor"),
        Given("orders", pd.DataFrame({"a": [1, 2]})),
        Given("users", [{"a": 1}]),
    ]
    assert run(calls, "transformer", code, *inputs) == "1 2"


def test_plain_values_as_inputs_and_variables(calls: Calls) -> None:
    code = """
    transform <- function(df_1, ...) {
      list(df_1$rates, global_vars$quote, global_vars$execution_date, global_vars$ids, global_vars$configuration$depth)
    }
    """
    variables = {"quote": "a'); q('no\n", "ids": [1, None, 3], "logger": object()}
    value = run(
        calls,
        "transformer",
        code,
        Given("up", {"rates": [1.5, 2]}),
        variables=variables,
        configuration={"depth": 3},
        execution_date=dt.datetime(2024, 1, 2, tzinfo=dt.UTC),
    )
    assert value == [[1.5, 2.0], "a'); q('no\n", "2024-01-02T00:00:00+00:00", [1, None, 3], 3]


def test_an_error_names_the_line_and_says_what_was_called(calls: Calls) -> None:
    code = "helper <- function(x) {\n  y <- x + 1\n  y + 'a'\n}\nload_data <- function() {\n  helper(1)\n}\n"
    with pytest.raises(UserError) as caught:
        run(calls, "data_loader", code)
    assert caught.value.where == "data_loaders/it.R:3"
    assert caught.value.summary == 'Error in y + "a": non-numeric argument to binary operator'
    assert "data_loaders/it.R:6: helper(1)\n  data_loaders/it.R:3: y + 'a'\n" in caught.value.trace


@pytest.mark.parametrize(
    ("code", "line", "said"),
    [
        ("x <- 1\nstop('loud')\nload_data <- function() 1\n", 2, "Error: loud"),
        ("load_data <- function() {\n  for (i in 1:5000) {\n    i\n  }\n  log('a')\n}\n", 5, "non-numeric argument"),
    ],
)
def test_lines_of_errors(calls: Calls, code: str, line: int, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        run(calls, "data_loader", code)
    assert caught.value.where == f"data_loaders/it.R:{line}"


def test_recursion_for_ever(calls: Calls) -> None:
    with pytest.raises(UserError, match=r"infinite recursion|stack usage") as caught:
        run(calls, "data_loader", "load_data <- function() {\n  f <- function(n) {\n    f(n + 1)\n  }\n  f(1)\n}\n")
    # Where the stack ends is a matter of luck: on entering the function, or at the call in it.
    assert caught.value.where in ("data_loaders/it.R:2", "data_loaders/it.R:3")


def test_a_syntax_error(calls: Calls) -> None:
    with refuses("r.file_failed", "unexpected '}'") as caught:
        run(calls, "data_loader", "load_data <- function() {\n  1 +\n}\n")
    assert caught.value.where == "data_loaders/it.R:3"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("# load_data\nload <- function() 1\n", r"the file defines no function load_data\(\)"),
        ("load <- function() 'load_data'\n", r"the file defines no function load_data\(\); it defines load"),
    ],
)
def test_a_function_that_is_not_there(calls: Calls, code: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run(calls, "data_loader", code)


def test_too_many_inputs(calls: Calls) -> None:
    with refuses("r.file_failed", "transform()", "a, b"):
        run(calls, "transformer", "transform <- function(df_1) df_1\n", Given("a", [1]), Given("b", [1]))


def test_a_custom_block_with_two_functions(calls: Calls) -> None:
    with pytest.raises(ConfigError, match=r"the file defines load_data\(\) and transform\(\): keep one of them"):
        run(calls, "custom", "load_data <- function() 1\ntransform <- function(x) 1\n")


def test_what_cannot_be_handed_on(calls: Calls) -> None:
    with pytest.raises(StreamlineError, match=r"load_data\(\): the returned value is of class lm"):
        run(calls, "data_loader", "load_data <- function() lm(mpg ~ cyl, mtcars)\n")
    with pytest.raises(StreamlineError, match=r"the returned value's \$a\[\[2\]\] is of type closure"):
        run(calls, "data_loader", "load_data <- function() list(a = list(1, mean))\n")
    assert run(calls, "data_exporter", "export_data <- function(x) lm(mpg ~ cyl, mtcars)\n", Given("a", [1])) is None


def test_the_end_of_r_in_words(calls: Calls) -> None:
    with pytest.raises(StreamlineError, match=r"code 3 .*quit\(\)"):
        run(calls, "data_loader", "load_data <- function() quit(status = 3)\n")
    with pytest.raises(StreamlineError, match="SIGKILL"):
        run(calls, "data_loader", "load_data <- function() tools::pskill(Sys.getpid(), 9)\n")


def test_what_it_prints(calls: Calls, capfd: pytest.CaptureFixture[str]) -> None:
    run(
        calls,
        "data_loader",
        "load_data <- function() {\n  print('to out')\n  message('to err')\n  warning('hm')\n  1\n}\n",
    )
    out, err = capfd.readouterr()
    assert out == '[1] "to out"\n'
    assert err.startswith("to err\n")
    assert "hm" in err


def test_content_in_place_of_a_file(calls: Calls) -> None:
    block = calls.block("data_loader", "r", None, content="load_data <- function() 7L\n")
    check_block(calls.project, block)
    assert r.run(calls.call(block)) == 7


def test_its_working_directory_and_private_files(calls: Calls) -> None:
    assert run(calls, "data_loader", "load_data <- function() getwd()\n") == str(calls.root)
    modes = {oct(one.stat().st_mode & 0o777) for one in calls.scratches.rglob("*.rds")}
    assert modes == {"0o600"}


def test_r_is_not_installed(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with refuses("r.not_installed") as caught:
        run(calls, "data_loader", "load_data <- function() 1\n")
    assert "r-base-core" in str(caught.value.hint)


def test_a_type_that_r_has_not(calls: Calls) -> None:
    with refuses("block.wrong_language", "sensor"):
        run(calls, "sensor", "sensor <- function() TRUE\n")


def test_r_dies_with_the_worker(calls: Calls, tmp_path: Path) -> None:
    """Killed outright, the worker cannot end anything itself."""
    note = tmp_path / "pid"
    file = calls.write(
        "data_loaders/slow.R", f'load_data <- function() {{ cat(Sys.getpid(), file = "{note}")\n  Sys.sleep(600) }}\n'
    )
    script = f"""
import sys
from pathlib import Path
from streamline.blocks.r import block as r
from tests.blocks.call_inputs import Calls
calls = Calls(Path({str(calls.root)!r}))
r.run(calls.call(calls.block("data_loader", "r", Path({str(file)!r}))))
"""
    worker = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    try:
        _wait_for(lambda: note.exists() and note.read_text() != "")
        pid = int(note.read_text())
    finally:
        worker.kill()
        worker.wait()
    _wait_for(lambda: not _alive(pid))


def _wait_for(true: Any) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes()
