"""dbt blocks: run dbt in its own environment, on a private overlay of a dbt project.

The block's results are dbt's nodes with status and time. Outputs of upstream blocks are sources for the models; the
rows of the models are passed downstream as DataFrames.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamline.blocks.call import block_output, shown_block
from streamline.blocks.dbt.environment import dbt_environment
from streamline.blocks.dbt.overlay import make_overlay, mentions
from streamline.blocks.dbt.profiles import load_profile
from streamline.blocks.dbt.results import failed, failure_text, place_of, read_json, read_results
from streamline.blocks.dbt.settings import read_settings
from streamline.blocks.dbt.sources import SEED_PREFIX, give_sources
from streamline.blocks.dbt.warehouse import alone, open_postgres, read_rows, settle_duckdb
from streamline.databases import duckdb_lock
from streamline.errors import ConfigError, StreamlineError
from streamline.outputs.folders import write_file
from streamline.outputs.values import ParquetFile
from streamline.pipeline.reader import load_pipeline
from streamline.processes.programs import run_program
from streamline.project.lockfile import file_lock
from streamline.project.render import Renderer

if TYPE_CHECKING:
    from streamline.blocks.call import BlockCall
    from streamline.blocks.dbt.overlay import Overlay
    from streamline.blocks.dbt.profiles import DbtProfile
    from streamline.blocks.dbt.settings import DbtSettings
    from streamline.pipeline.model import Block
    from streamline.project.project import Project

_WITH_MODELS = ("build", "run", "seed", "snapshot", "retry")
_SHOWN_WARNINGS = 10
_CHILD = Path(__file__).with_name("child.py")


def check_block(project: Project, block: Block, renderer: Renderer | None = None) -> None:
    """Check a block's dbt project, command, arguments, profile and target. Starts no process.

    Raises:
        ConfigError: a setting is missing or invalid.
    """
    where = shown_block(project, block)
    settings = read_settings(project, block, where, None)
    named = (settings.target, settings.arguments.profile, settings.arguments.profiles_dir)
    if not any(name is not None and "{{" in name for name in named):
        variables = renderer.variables if renderer is not None else project.variables
        load_profile(project, settings, where, variables, complete=False)


def run(call: BlockCall) -> Any:
    """Run a dbt block. Return a DataFrame for one model, a dict of DataFrames by name for several.

    Raises:
        ConfigError: a setting is missing or invalid.
        StreamlineError: dbt failed; the message names the failed models and tests.
    """
    settings = read_settings(call.project, call.block, call.where, _renderer(call))
    profile = load_profile(call.project, settings, call.where, call.variables)
    # Printed, not logged: the installation is slow, so the user should see it.
    environment = dbt_environment(call.project, profile.type, partial(print, flush=True))
    file = settle_duckdb(call.project, settings.folder, profile, call.scratch) if profile.type == "duckdb" else None
    call.project.ensure_work_dir()
    home = call.project.work_dir / "dbt" / _folder_name(call.pipeline) / _folder_name(call.block.uuid)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The children of a dynamic block share a folder.
    with file_lock(home / ".lock"):
        overlay = make_overlay(call.project, settings.folder, home, profile=profile.name)
        with alone(call.project, file):
            return _run(call, settings, profile, overlay, home, environment.python)


def _run(call: BlockCall, settings: DbtSettings, profile: DbtProfile, overlay: Overlay, home: Path, python: str) -> Any:
    names, sources = mentions(settings.folder)
    seeds, left_out = give_sources(call, profile, overlay, home, settings.folder, sources)
    variables = json.dumps(_variables(call, settings, names))
    invocations = [["deps", "--vars", variables]] if overlay.needs_deps else []
    if seeds:
        invocations.append(["--quiet", "seed", "--full-refresh", "--select", *seeds, "--vars", variables])
    invocations.append([*settings.command, *settings.arguments.rest, "--vars", variables])
    wanted = _wanted(call, settings)
    how = {"duckdb": "copy", "postgres": "names"}.get(profile.type, "rows")
    files = call.scratch / "models"
    files.mkdir(mode=0o700)
    report_file = call.scratch / "report.json"
    job = {
        "invocations": invocations,
        "main": len(invocations) - 1,
        "target": str(overlay.target),
        "waiting": duckdb_lock.__file__ if profile.type == "duckdb" else None,
        "export": None
        if wanted is False
        else {
            "how": how,
            "names": wanted if isinstance(wanted, list) else None,
            "folder": str(files),
            "more": ["--vars", variables],
        },
        "report": str(report_file),
    }
    profiles = call.scratch / "profiles"
    profiles.mkdir(mode=0o700)
    write_file(profiles / "profiles.yml", profile.text().encode())
    write_file(call.scratch / "job.json", json.dumps(job).encode())
    if settings.command[0] != "retry":  # which reads them
        for name in ("run_results.json", "sources.json"):
            with contextlib.suppress(FileNotFoundError):
                (overlay.target / name).unlink()
    ended = run_program(
        [python, "-I", str(_CHILD), str(call.scratch / "job.json")],
        cwd=call.project.root,
        run_id=call.run_id,
        env=_environment(overlay, profiles),
        keep_stdout=True,
    )
    report = read_json(report_file)
    results = _results(call, overlay)
    _warn(call, report)
    if overlay.needs_deps and report and report["stage"] != 0:
        overlay.installed()
    if not report:
        tail = "".join(f"\n  {line}" for line in ended.tail[-10:])
        raise StreamlineError(f"{ended.describe('dbt')}{tail}", where=call.where, code="dbt.failed")
    if not report["success"]:
        raise _failure(call, settings, overlay, results, report, left_out, main=len(invocations) - 1)
    if settings.command[0] == "docs":
        call.log(f"dbt's documentation: {call.project.shown(overlay.target / 'index.html')}")
    return _output(profile, report["exported"])


def _wanted(call: BlockCall, settings: DbtSettings) -> list[str] | bool:
    """Return the models to pass downstream; True: all that ran, if a downstream block is not a dbt block."""
    if settings.command[0] not in _WITH_MODELS:
        return False
    if settings.output is not None:
        return settings.output
    if not call.block.downstream:
        return False

    try:
        blocks = load_pipeline(call.project, call.pipeline).blocks
    except ConfigError:
        return True
    return any(name not in blocks or blocks[name].type != "dbt" for name in call.block.downstream)


def _output(profile: DbtProfile, exported: list[dict[str, Any]]) -> Any:
    frames: dict[str, Any] = {}
    if profile.type == "postgres" and exported:
        with open_postgres(profile) as database:
            for model in exported:
                table = database.query(f"select * from {model['relation']}")
                frames[model["name"]] = table.to_pandas() if table is not None else None
    for model in exported:
        path = Path(model.get("path", ""))
        if path.suffix == ".json":
            frames[model["name"]] = read_rows(path)
        elif path.suffix == ".parquet":
            if len(exported) == 1:
                return ParquetFile(path)
            import pandas as pd

            frames[model["name"]] = pd.read_parquet(path)
    if not frames:
        return None
    return next(iter(frames.values())) if len(frames) == 1 else frames


def _failure(
    call: BlockCall,
    settings: DbtSettings,
    overlay: Overlay,
    results: list[dict[str, Any]],
    report: dict[str, Any],
    left_out: Mapping[str, str],
    *,
    main: int,
) -> StreamlineError:
    hint = None
    if report["stage"] == main and failed(results):
        text = failure_text(results)
        where = place_of(results, overlay.target, lambda path: call.project.shown(settings.folder / path))
        hint = f"the SQL that dbt ran is in {call.project.shown(overlay.target)}/compiled"
    else:
        what = {main: " ".join(settings.command), "export": "reading the models"}.get(report["stage"], "preparing")
        text, where = f"dbt, {what}: {report['error'] or 'failed; see its log'}", None
    for uuid, reason in left_out.items():
        if uuid in text:
            hint = f"the output of {uuid} cannot be a source: {reason}"
    masker = call.project.secrets.masker
    text = text.replace(str(overlay.folder), call.project.shown(settings.folder))
    return StreamlineError(masker.mask(text), where=where or call.where, hint=hint, code="dbt.failed")


def _results(call: BlockCall, overlay: Overlay) -> list[dict[str, Any]]:
    results = read_results(overlay.target, SEED_PREFIX)
    masker = call.project.secrets.masker
    for node in results:
        if node["message"] is not None:
            node["message"] = masker.mask(str(node["message"]))
        call.results.append({key: value for key, value in node.items() if key != "unique_id"})
    return results


def _warn(call: BlockCall, report: dict[str, Any]) -> None:
    warnings = list(dict.fromkeys(report.get("warnings", ())))
    masker = call.project.secrets.masker
    for warning in warnings[:_SHOWN_WARNINGS]:
        text = re.sub(r"\x1b\[[0-9;]*m", "", warning).strip()
        call.warn(f"{call.where}: dbt: {masker.mask(text)}")
    if len(warnings) > _SHOWN_WARNINGS:
        call.warn(f"{call.where}: dbt: {len(warnings) - _SHOWN_WARNINGS} more warnings in the run's log")


def _variables(call: BlockCall, settings: DbtSettings, asked: Collection[str]) -> dict[str, Any]:
    """Return dbt's variables: the run's variables, and those run values (`execution_date`, …) that models use.

    Run values change with every run, and dbt parses the whole project again after a change.
    """
    values = {name: call.kwargs[name] for name in sorted(asked) if name in call.kwargs} | call.variables
    plain = {name: data for name, value in values.items() if (data := _plain(value)) is not NotImplemented}
    return plain | {name: _plain(value) for name, value in settings.arguments.vars.items()}


def _plain(value: Any) -> Any:
    """Return a variable as JSON data; NotImplemented if it cannot be represented."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): plain for name, item in value.items() if (plain := _plain(item)) is not NotImplemented}
    if isinstance(value, list | tuple):
        return [plain for item in value if (plain := _plain(item)) is not NotImplemented]
    return NotImplemented


def _environment(overlay: Overlay, profiles: Path) -> dict[str, str]:
    """Return the caller's environment, without variables that change where Python imports packages from."""
    left_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    return env | {
        "DBT_PROJECT_DIR": str(overlay.folder),
        "DBT_PROFILES_DIR": str(profiles),
        "DBT_TARGET_PATH": str(overlay.target),
        "DBT_LOG_PATH": str(overlay.logs),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
        "DBT_USE_COLORS": "false",
        "DBT_USE_COLORS_FILE": "false",
        "PYTHONUTF8": "1",
    }


def _renderer(call: BlockCall) -> Renderer:
    """Return a renderer for the arguments, with variables, secrets, upstream outputs and the run's values."""
    names = {name: plain for name, value in call.kwargs.items() if (plain := _plain(value)) is not NotImplemented}
    # The variables are rendered already.
    outputs = block_output(call.inputs, call.block.uuid)
    return Renderer(call.project, {}, call.project.secrets, outputs, names=names, runtime=call.variables)


def _folder_name(uuid: str) -> str:
    return re.sub(r"[^\w.-]", "_", uuid)
