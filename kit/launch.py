"""Start a connector by its name from the folder that holds it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence


def launch(role: str, folder: str, package: str, argv: Sequence[str]) -> int:
    """Run the connector that the first argument names with the other arguments; return its exit code.

    Args:
        role: `tap` or `target`, for messages. The name may start with it: `sqlite` and `tap-sqlite` are the same.
        folder: holds one folder per connector, each with a `__main__.py`.
        package: the name under which the folder can be imported.
    """
    known = sorted(entry.name for entry in os.scandir(folder) if os.path.exists(f"{entry.path}/__main__.py"))  # noqa: PTH110
    name = argv[0].removeprefix(f"{role}-") if argv else ""
    if name not in known:
        problem = f"unknown {role} {argv[0]!r}" if argv else f"no {role} named"
        print(f"ERROR {problem}; available: {', '.join(known)}", file=sys.stderr)
        return 2
    connector = importlib.import_module(f"{package}.{name}.__main__")
    return int(connector.main(argv[1:]))
