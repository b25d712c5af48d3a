"""What dbt says came of a run: run_results.json as the block's results, and failures in words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FAILED = ("error", "fail", "runtime error", "partial success")
_HASH = re.compile(r"\.[0-9a-f]{8,}$")


def read_results(target: Path, own: str) -> list[dict[str, Any]]:
    """The nodes that ran, in dbt's order: `{name, resource_type, status, seconds, message}`.

    Args:
        target: dbt's target folder.
        own: how the names of nodes begin that are not the user's.
    """
    found = []
    for file in ("run_results.json", "sources.json"):
        try:
            document = json.loads((target / file).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            continue
        for one in document.get("results") or []:
            kind, name = node_name(str(one.get("unique_id")))
            if name.startswith(own):
                continue
            found.append(
                {
                    "name": name,
                    "resource_type": kind,
                    "status": str(one.get("status")),
                    "seconds": round(float(one.get("execution_time") or 0), 3),
                    "message": one.get("message") or one.get("error"),
                    "unique_id": str(one.get("unique_id")),
                }
            )
    return found


def node_name(unique_id: str) -> tuple[str, str]:
    """Type and name of `model.shop.orders` or `test.shop.not_null_orders_id.cf6c17daed`."""
    kind, _, rest = unique_id.partition(".")
    name = rest.partition(".")[2] or rest
    return kind, _HASH.sub("", name) if kind == "test" else name


def failed(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that failed themselves."""
    return [one for one in results if one["status"] in _FAILED]


def failure_text(results: list[dict[str, Any]]) -> str:
    """The failures in words, each with dbt's message.

    One failure is one sentence; several are counted, and listed line by line.
    """
    bad = failed(results)
    said = [f"{_kind(one)} {one['name']} {_happened(one)}{_message(one)}" for one in bad]
    skipped = sum(one["status"] == "skipped" for one in results)
    more = f" ({skipped} skipped because of it)" if skipped else ""
    if len(said) == 1:
        return f"dbt: {said[0]}{more}"
    lines = "".join(f"\n  {line}" for line in said)
    return f"dbt: {len(said)} of {len(results)} nodes failed{more}:{lines}"


def place_of(results: list[dict[str, Any]], target: Path, shown: Callable[[str], str]) -> str | None:
    """The file of the first node that failed; None where dbt does not say."""
    bad = failed(results)
    if not bad:
        return None
    try:
        nodes = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    for group in ("nodes", "sources", "unit_tests"):
        node = (nodes.get(group) or {}).get(bad[0]["unique_id"])
        if node is not None and node.get("original_file_path"):
            return shown(str(node["original_file_path"]))
    return None


def _kind(one: dict[str, Any]) -> str:
    return str(one["resource_type"]).replace("_", " ")


def _happened(one: dict[str, Any]) -> str:
    return "failed" if one["status"] in ("fail", "error", "runtime error") else str(one["status"])


def _message(one: dict[str, Any]) -> str:
    if not one["message"]:
        return ""
    lines = [line.strip() for line in str(one["message"]).strip().splitlines() if line.strip()]
    # `Runtime Error in model orders (models/orders.sql)` says what stands before it already.
    if len(lines) > 1 and re.match(r"[\w ]+ Error in ", lines[0]):
        lines = lines[1:]
    return ": " + "\n    ".join(lines)
