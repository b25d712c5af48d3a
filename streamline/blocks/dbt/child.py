"""Runs in dbt's own environment: invokes dbt as a job file says, and writes a report.

Arguments stand in a file, since a command line can be read by every user of the machine. Only the standard library
and dbt are at hand here.

The job: `invocations` (dbt's arguments, one list for each), `main` (the index of the one that counts), `target`
(dbt's target folder), `waiting` (None, or the Python file that knows how to wait for a DuckDB file), `export` (None,
or: `how` (`copy`: DuckDB writes Parquet; `rows`: rows come through dbt), `names` (None: all), `folder`), `report`
(where to write).
The report: `success`, `error` (None, or text), `stage` (index of the invocation that failed), `warnings`,
`exported` ([{name, path, columns}]).
"""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

KINDS = ("model", "snapshot", "seed")
QUIET = ("--quiet",)


def main(path: str) -> int:
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    if job["waiting"]:
        wait_for_duckdb(job["waiting"])
    from dbt.cli.main import dbtRunner  # type: ignore[import-not-found,unused-ignore]

    warnings: list[str] = []
    errors: list[str] = []

    def note(event: Any) -> None:
        if event.info.level == "warn":
            warnings.append(event.info.msg)
        elif event.info.level == "error":
            errors.append(event.info.msg)

    runner = dbtRunner(callbacks=[note])
    relations: dict[str, str] = {}
    report: dict[str, Any] = {"success": True, "error": None, "stage": None, "warnings": warnings, "exported": []}
    for number, arguments in enumerate(job["invocations"]):
        del errors[:]
        done = runner.invoke(arguments)
        if number == job["main"]:
            relations = relations_of(done.result)
        if not done.success:
            failure = str(done.exception).strip() if done.exception is not None else ""
            report.update(success=False, error=failure or "\n".join(errors) or None, stage=number)
            break
    if report["success"] and job["export"]:
        try:
            report["exported"] = export(runner, job, errors, relations)
        except Exception as error:
            report.update(success=False, stage="export", error=str(error))
    Path(job["report"]).write_text(json.dumps(report), encoding="utf-8")
    return 0 if report["success"] else 1


def wait_for_duckdb(file: str) -> None:
    """Make `duckdb.connect` wait while another block has the file open; dbt-duckdb would fail at once."""
    import duckdb

    spec = importlib.util.spec_from_file_location("streamline_waiting", file)
    assert spec is not None
    assert spec.loader is not None
    waiting = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(waiting)
    connect = duckdb.connect

    def patient(database: Any = ":memory:", *args: Any, **options: Any) -> Any:
        return waiting.patiently(lambda: connect(database, *args, **options), str(database))

    duckdb.connect = patient


def relations_of(result: Any) -> dict[str, str]:
    """Return the table or view of each node that succeeded, by the node's id, in order."""
    relations = {}
    for outcome in getattr(result, "results", None) or []:
        node = getattr(outcome, "node", None)
        if node is not None and str(outcome.status) == "success" and getattr(node, "relation_name", None):
            relations[node.unique_id] = node.relation_name
    return relations


def export(runner: Any, job: Any, errors: list[str], relations: dict[str, str]) -> list[dict[str, Any]]:
    """Write the rows of the models into files."""
    # What is invoked here writes its own results over those of the run.
    kept = Path(job["target"]) / "run_results.json"
    text = kept.read_text(encoding="utf-8")
    try:
        return _export(runner, job, errors, relations)
    finally:
        kept.write_text(text, encoding="utf-8")


def _export(runner: Any, job: Any, errors: list[str], relations: dict[str, str]) -> list[dict[str, Any]]:
    wanted = job["export"]
    # Seeds that a build loads are what its models are made of; alone they are the outcome.
    kinds = {unique_id.partition(".")[0] for unique_id in relations}
    kind = next((candidate for candidate in KINDS if candidate in kinds), None)
    models: list[dict[str, Any]] = []
    for unique_id, relation in relations.items():
        name = unique_id.split(".", 2)[2]
        if unique_id.startswith(f"{kind}.") and (wanted["names"] is None or name in wanted["names"]):
            models.append({"name": name, "relation": relation})
    if wanted["how"] == "names":
        return models
    for number, model in enumerate(models):
        suffix = "parquet" if wanted["how"] == "copy" else "json"
        model["path"] = str(Path(wanted["folder"]) / f"model_{number}.{suffix}")
    if wanted["how"] == "copy" and models:
        done = runner.invoke(
            [*QUIET, "run-operation", "streamline__copy", "--args", json.dumps({"relations": models}), *wanted["more"]]
        )
        if not done.success:
            raise RuntimeError(str(done.exception or "\n".join(errors)))
    elif wanted["how"] == "rows":
        for model in models:
            query = f"select * from {model['relation']}"
            done = runner.invoke([*QUIET, "show", "--inline", query, "--limit", "-1", *wanted["more"]])
            if not done.success:
                raise RuntimeError(str(done.exception or "\n".join(errors)))
            table = done.result.results[0].agate_table
            rows = [[None if cell is None else str(cell) for cell in row] for row in table.rows]
            types = [type(kind).__name__ for kind in table.column_types]
            data = {"names": list(table.column_names), "kinds": types, "rows": rows}
            Path(model["path"]).write_text(json.dumps(data), encoding="utf-8")
    return models


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
