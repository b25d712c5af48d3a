"""Read the results of a dbt run: run_results.json as the block's results, and messages for failures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FAILED = ("error", "fail", "runtime error", "partial success")
_HASH = re.compile(r"\.[0-9a-f]{8,}$")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if the file does not exist or is not valid JSON."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return document


def read_results(target: Path, own: str) -> list[dict[str, Any]]:
    """Return the nodes that ran, in dbt's order: `{name, resource_type, status, seconds, message}`.

    Args:
        target: dbt's target folder.
        own: the prefix of Streamline's own nodes, which are left out.
    """
    nodes = []
    for file in ("run_results.json", "sources.json"):
        for result in read_json(target / file).get("results") or []:
            kind, name = node_name(str(result.get("unique_id")))
            if name.startswith(own):
                continue
            nodes.append(
                {
                    "name": name,
                    "resource_type": kind,
                    "status": str(result.get("status")),
                    "seconds": round(float(result.get("execution_time") or 0), 3),
                    "message": result.get("message") or result.get("error"),
                    "unique_id": str(result.get("unique_id")),
                }
            )
    return nodes


def node_name(unique_id: str) -> tuple[str, str]:
    """Return type and name of `model.shop.orders` or `test.shop.not_null_orders_id.cf6c17daed`."""
    kind, _, rest = unique_id.partition(".")
    name = rest.partition(".")[2] or rest
    return kind, _HASH.sub("", name) if kind == "test" else name


def failed(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the nodes that failed, without those that were skipped."""
    return [node for node in results if node["status"] in _FAILED]


def failure_text(results: list[dict[str, Any]]) -> str:
    """Return the error message: the failed nodes, each with dbt's message; several are counted and listed."""
    failures = []
    for node in failed(results):
        kind, status = str(node["resource_type"]).replace("_", " "), str(node["status"])
        status = status if status == "partial success" else "failed"
        failures.append(f"{kind} {node['name']} {status}{_message(node)}")
    skipped = sum(node["status"] == "skipped" for node in results)
    more = f" ({skipped} skipped because of it)" if skipped else ""
    if len(failures) == 1:
        return f"dbt: {failures[0]}{more}"
    lines = "".join(f"\n  {line}" for line in failures)
    return f"dbt: {len(failures)} of {len(results)} nodes failed{more}:{lines}"


def place_of(results: list[dict[str, Any]], target: Path, shown: Callable[[str], str]) -> str | None:
    """Return the file of the first failed node; None if dbt has not recorded it."""
    failures = failed(results)
    if not failures:
        return None
    nodes = read_json(target / "manifest.json")
    for group in ("nodes", "sources", "unit_tests"):
        node = (nodes.get(group) or {}).get(failures[0]["unique_id"])
        if node is not None and node.get("original_file_path"):
            return shown(str(node["original_file_path"]))
    return None


def _message(node: dict[str, Any]) -> str:
    if not node["message"]:
        return ""
    lines = [line.strip() for line in str(node["message"]).strip().splitlines() if line.strip()]
    # `Runtime Error in model orders (models/orders.sql)` repeats the type and name.
    if len(lines) > 1 and re.match(r"[\w ]+ Error in ", lines[0]):
        lines = lines[1:]
    return ": " + "\n    ".join(lines)
