"""R blocks: `load_data()`, `transform(df_1, …)`, `export_data(df_1, …)`, run by the system's own Rscript.

Data passes in R's own serialization (rds.py), so that no package of R is needed and nothing is guessed from text. R
runs with `TZ=UTC`: a time without a zone is the same clock time here and there.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamline.blocks.call import GATES, block_text
from streamline.blocks.python.file import UserError
from streamline.blocks.r.check import FUNCTIONS, rscript
from streamline.blocks.r.from_r import from_r
from streamline.blocks.r.rds import RVector, decode, encode, strings
from streamline.blocks.r.to_r import NotForRError, data_frame, to_r
from streamline.errors import ConfigError, StreamlineError
from streamline.processes.programs import run_program

if TYPE_CHECKING:
    from streamline.blocks.call import BlockCall, Input
    from streamline.blocks.r.rds import RVector

_WRAPPER = Path(__file__).with_name("block.R")


def run(call: BlockCall) -> Any:
    """Run an R block. Return what its function returned: a DataFrame for a data.frame, else plain values.

    Raises:
        ConfigError: R is not installed, or the file is not what a block needs.
        UserError: the R code failed; it names the block's line.
        StreamlineError: R ended without a result.
    """
    program = rscript(call.where)
    file = call.block.file
    if file is None:
        file = call.scratch / f"{re.sub(r'[^A-Za-z0-9_-]', '_', call.block.uuid)}.R"
        _private(file, [block_text(call.block, call.where).encode()])
    _write_call(call, file)
    env = {name: value for name, value in os.environ.items() if not name.startswith("R_TESTS")} | {"TZ": "UTC"}
    if not any(env.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG")):
        env["LC_ALL"] = "C.UTF-8"  # in the C locale, R prints é as <U+00E9>
    argv = [program, "--vanilla", str(_WRAPPER), str(call.scratch)]
    ended = run_program(argv, cwd=call.project.root, run_id=call.run_id, env=env, keep_stdout=False)
    error = _read(call.scratch / "error.rds")
    if error is not None:
        raise _failure(call, file, error)
    result = call.scratch / "result.rds"
    if ended.code != 0 or not result.exists():
        guess = " (does it call quit()?)" if ended.code >= 0 else ""
        tail = "".join(f"\n  {line}" for line in ended.tail[-5:]) if ended.code > 0 else ""
        raise StreamlineError(
            f"{ended.describe('R')} and gave no result{guess}{tail}",
            where=call.where,
            hint="see the run's log for what it printed",
            code="r.no_result",
        )
    return from_r(_read(result))


def _write_call(call: BlockCall, file: Path) -> None:
    """Write the files that the wrapper reads to the scratch folder."""
    paths = []
    for number, given in enumerate(call.inputs, 1):
        path = call.scratch / f"input_{number}.rds"
        try:
            _private(path, encode(_input(given, call)))
        except ValueError as error:  # NotForRError among them
            raise StreamlineError(
                f"the output of {given.uuid} cannot be passed to R: {error}",
                where=call.where,
                code="r.value_not_supported",
            ) from error
        paths.append(str(path))
    variables = {}
    for name, value in call.kwargs.items():
        try:
            variables[name] = to_r(_as_text(value))
        except NotForRError:
            continue  # the logger and the like, which R has no use for
    names = RVector("list", list(variables.values()), {"names": strings(*variables)})
    wanted: dict[str, Any] = {
        "file": to_r(str(file)),
        "functions": strings(*FUNCTIONS.get(call.block.type, ())),
        "inputs": RVector("list", [strings(path) for path in paths]),
        "uuids": strings(*(given.uuid for given in call.inputs)),
        "gates": RVector("list", [to_r(given.type in GATES) for given in call.inputs]),
        "variables": names,
        "lenient": to_r(call.block.type == "data_exporter"),
    }
    _private(call.scratch / "call.rds", encode(RVector("list", list(wanted.values()), {"names": strings(*wanted)})))


def _input(given: Input, call: BlockCall) -> RVector | None:
    if given.type in GATES:
        return to_r(given.value())
    try:
        table = given.table()
    except ConfigError:
        return to_r(given.value())
    return data_frame(table, lambda text: call.warn(f"{call.where}: output of {given.uuid}, {text}"))


def _as_text(value: Any) -> Any:
    """Return a value with its dates and times as ISO 8601 text: R's classes do not belong in a list of variables."""
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: _as_text(item) for name, item in value.items()}
    return [_as_text(item) for item in value] if isinstance(value, list | tuple) else value


def _failure(call: BlockCall, file: Path, error: RVector) -> Exception:
    """Return the failure that the wrapper reported as an error for the user."""
    failure: dict[str, Any] = from_r(error)
    message, line = str(failure["message"]), failure["line"]
    trace = (
        failure["trace"] if isinstance(failure["trace"], list) else [failure["trace"]]
    )  # a vector of one is a scalar
    where = call.where if line is None else f"{call.where}:{line}"
    message = message.replace(str(file), call.where)
    if failure["kind"] == "file":
        return ConfigError(message, where=where, code="r.file_failed")
    if failure["kind"] == "value":
        return StreamlineError(message, where=where, code="r.value_not_supported")
    lines = ["Traceback of R (innermost last):"]
    for entry in trace:
        place, _, text = str(entry).partition("\t")
        path, _, number = place.rpartition(":")
        shown = call.where if path == str(file) else call.project.shown(Path(path))
        lines.append(f"  {shown}:{number}: {text}")
    return UserError(message.splitlines()[0], "\n".join([*lines, message]), where)


def _read(path: Path) -> RVector | None:
    try:
        return decode(path.read_bytes())
    except FileNotFoundError:
        return None


def _private(path: Path, pieces: list[bytes]) -> None:
    """Write a file that only its owner can read: variables may be secrets."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.writelines(pieces)
