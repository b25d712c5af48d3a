"""Outputs of upstream blocks as dbt's sources: `source('streamline', '<block uuid>')`.

DuckDB reads their Parquet files where they are; PostgreSQL gets tables by COPY; for other systems dbt itself loads
them as seeds.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from streamline.blocks.call import GATES
from streamline.blocks.dbt.overlay import SEEDS, SOURCES, Overlay
from streamline.blocks.dbt.results import read_json
from streamline.blocks.dbt.warehouse import open_postgres
from streamline.errors import ConfigError
from streamline.pipeline.reader import load_pipeline
from streamline.project.files import replace_file
from streamline.project.lockfile import file_lock

if TYPE_CHECKING:
    import pyarrow as pa

    from streamline.blocks.call import BlockCall, Input
    from streamline.blocks.dbt.profiles import DbtProfile
    from streamline.databases.database import Database

SOURCE = "streamline"
SEED_PREFIX = "streamline__"
_LONGEST_NAME = 63


def give_sources(
    call: BlockCall, profile: DbtProfile, overlay: Overlay, home: Path, folder: Path, wanted: Collection[str]
) -> tuple[list[str], dict[str, str]]:
    """Make every upstream output that is a table a source, and describe it in the overlay.

    dbt reads a project as a whole: a source that any of its models asks for must be described, also where those
    models do not run. One that is not upstream here is as another dbt block was given it last.

    Args:
        overlay: gets sources.yml.
        home: the block's folder under .streamline/dbt/.
        wanted: names of sources that the project's models ask for.

    Returns:
        names of seeds that dbt is to load first; and why a block's output is no source, by its uuid.
    """
    seeds: list[str] = []
    left_out: dict[str, str] = {}
    tables: dict[str, dict[str, Any]] = {}
    memory = SourceRecord(call.project.work_dir / "dbt" / "sources.json", f"{folder} {profile.type} {profile.target}")
    for upstream in call.inputs:
        if upstream.type in (*GATES, "dbt"):
            continue  # models of an upstream dbt block are in the warehouse, for ref()
        try:
            tables[upstream.uuid] = _source(call, upstream, profile, overlay, home, seeds)
        except ConfigError as error:
            left_out[upstream.uuid] = error.message
    memory.keep(call.pipeline, {name: table for name, table in tables.items() if not _is_secret(call, name)})
    for name in sorted(wanted - tables.keys()):
        known = memory.find(call.pipeline, name) if name not in left_out else None
        tables[name] = known or _nowhere(call, name, profile)
    if tables:
        _describe(overlay, [{"name": name, **table} for name, table in tables.items()], profile)
    return seeds, left_out


class SourceRecord:
    """Where the sources of a dbt project were last, by block and pipeline."""

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._key = key

    def keep(self, pipeline: str, tables: Mapping[str, dict[str, Any]]) -> None:
        """Save these entries; the pipeline's others stay."""
        if not tables:
            return
        with file_lock(self._path.with_suffix(".lock")):
            everything = read_json(self._path)
            of_project = everything.setdefault(self._key, {})
            for name, table in tables.items():
                entries = of_project.setdefault(name, {})
                entries.pop(pipeline, None)
                entries[pipeline] = table  # the newest is the last
            replace_file(self._path, json.dumps(everything))

    def find(self, pipeline: str, name: str) -> dict[str, Any] | None:
        """Return the pipeline's own entry, else the newest of another pipeline."""
        entries: dict[str, dict[str, Any]] = read_json(self._path).get(self._key, {}).get(name, {})
        return entries.get(pipeline) or next(reversed(entries.values()), None)


def _source(
    call: BlockCall, upstream: Input, profile: DbtProfile, overlay: Overlay, home: Path, seeds: list[str]
) -> dict[str, Any]:
    """Load an upstream output where dbt finds it, and return its entry for sources.yml."""
    if profile.type == "duckdb":
        return _file_source(call, upstream, home)
    rows = upstream.table()
    name = _table_name(call.pipeline, upstream.uuid)
    if profile.type == "postgres":
        _load(profile, rows, name)
        return {"identifier": name}
    seed = SEED_PREFIX + name
    _write_seed(rows, overlay.folder / SEEDS / f"{seed}.csv")
    seeds.append(seed)
    return {"identifier": seed}


def _nowhere(call: BlockCall, uuid: str, profile: DbtProfile) -> dict[str, Any]:
    """Return an entry for a source that does not exist: only models that read it fail, and their error says why."""
    reason = f"the output of block {uuid}, which is not upstream of {call.block.uuid} and has never been"
    return _external([Path(reason)]) if profile.type == "duckdb" else {"identifier": _table_name(call.pipeline, uuid)}


def _external(files: Sequence[Path]) -> dict[str, Any]:
    quoted = ", ".join("'" + str(path).replace("'", "''") + "'" for path in files)
    # dbt-duckdb fills `{name}` and the like in, so braces in a path are doubled.
    location = f"read_parquet([{quoted}])".replace("{", "{{").replace("}", "}}")
    if "{" in location:  # and dbt renders what stands in its files
        location = "{{ " + repr(location) + " }}"
    return {"config": {"meta": {"external_location": location}}}


def _file_source(call: BlockCall, upstream: Input, home: Path) -> dict[str, Any]:
    """Return an entry that DuckDB reads from the stored output."""
    files = upstream.parquet()
    if files is None:
        import pyarrow.parquet as pq

        # Whatever must not be stored is there as long as the run only.
        folder = call.scratch if _is_secret(call, upstream.uuid) else home / "sources"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{_identifier(upstream.uuid)}.parquet"
        temporary = path.with_suffix(".part")
        pq.write_table(upstream.table().replace_schema_metadata(None), temporary)
        temporary.replace(path)
        files = [path]
    return _external(files)


def _describe(overlay: Overlay, tables: Sequence[dict[str, Any]], profile: DbtProfile) -> None:
    source: dict[str, Any] = {"name": SOURCE, "tables": list(tables)}
    if profile.type != "duckdb":
        source |= {"schema": "{{ target.schema }}"}
    path = overlay.folder / SOURCES / "sources.yml"
    path.write_text(yaml.safe_dump({"version": 2, "sources": [source]}, sort_keys=False, allow_unicode=True))


def _load(profile: DbtProfile, rows: pa.Table, name: str) -> None:
    """Put the rows into a table of the target's schema, in one transaction.

    Views of the last run may read the table: it is emptied and filled where its columns are the same, and replaced
    together with those views where not.
    """
    schema = str(profile.output.get("schema") or "public")
    with open_postgres(profile) as database, database.transaction():
        database.ensure_schema(schema)
        fresh = f"{name[:50]}__new"
        database.drop(fresh, schema)
        database.create_table(fresh, schema, rows.schema)
        if _columns(database, name, schema) == _columns(database, fresh, schema):
            database.drop(fresh, schema)
            database.execute(f"truncate table {database.qualified(name, schema)}")
        else:
            database.execute(f"drop table if exists {database.qualified(name, schema)} cascade")
            database.execute(f"alter table {database.qualified(fresh, schema)} rename to {database.quote(name)}")
        database.insert(rows, name, schema)


def _columns(database: Database, name: str, schema: str) -> list[tuple[Any, ...]]:
    rows = database.query(
        "select column_name::text as name, data_type::text as type, udt_name::text as udt"
        " from information_schema.columns where table_schema = %(schema)s and table_name = %(name)s"
        " order by ordinal_position",
        {"schema": schema, "name": name},
    )
    return [tuple(row.values()) for row in rows.to_pylist()] if rows is not None else []


def _write_seed(rows: pa.Table, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows.column_names)
        for batch in rows.to_batches(max_chunksize=10_000):
            for row in batch.to_pylist():
                writer.writerow(["" if value is None else value for value in row.values()])


def _is_secret(call: BlockCall, uuid: str) -> bool:
    try:
        block = load_pipeline(call.project, call.pipeline).blocks.get(uuid)
    except ConfigError:
        return True
    return block is None or bool(block.configuration.get("secret_output"))


def _table_name(pipeline: str, uuid: str) -> str:
    return _identifier(f"{SOURCE}_{pipeline}_{uuid}")


def _identifier(text: str) -> str:
    """Return a name that every database allows, a different one for each text."""
    plain = re.sub(r"\W", "_", text, flags=re.ASCII).lower()
    limit = _LONGEST_NAME - len(SEED_PREFIX)
    if plain == text and len(plain) <= limit:
        return plain
    return f"{plain[: limit - 9]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
