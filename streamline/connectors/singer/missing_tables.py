"""Asks a target which of its tables do not exist: what was dropped there is not loaded again by an incremental run."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from streamline.connectors.singer.ask import ask
from streamline.flow.codecs import jsontext
from streamline.processes.child import TextMasker, private_file

if TYPE_CHECKING:
    from streamline.connectors.plugins import Plugin

MISSING_TABLES_CAPABILITY = "missing-tables"
"""The capability of a target that answers `--missing FILE` (a JSON list of tables) with those that do not exist."""

TIMEOUT = 60.0
"""Seconds for the answer."""


async def missing_tables(
    plugin: Plugin, config: Mapping[str, Any], tables: Collection[str], *, run_dir: Path, masker: TextMasker
) -> list[str]:
    """Return the tables that do not exist in a target; none if it cannot tell, such as while its database is in use.

    Args:
        config: the target's rendered config.
        tables: as the target's messages name them.
        run_dir: a private folder.
        masker: masks secrets in its log.

    Raises:
        ConfigError: the program can't be started.
    """
    names = {"--config": jsontext.encode(dict(config)), "--missing": jsontext.encode(sorted(tables))}
    with contextlib.ExitStack() as files:
        arguments = []
        for option, text in names.items():
            path = private_file(run_dir, f"{option[2:]}-{plugin.name}-{token_hex(4)}.json", text)
            files.callback(path.unlink, missing_ok=True)
            arguments += [option, str(path)]
        answer = await ask(plugin, arguments, masker=masker, timeout=TIMEOUT)
    if answer.returncode != 0 or answer.timed_out:
        return []
    try:
        missing = jsontext.decode(answer.stdout)
    except jsontext.JSONTextError:
        return []
    return [table for table in tables if table in missing] if isinstance(missing, list) else []
