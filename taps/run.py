"""Runs a tap of this folder by path: `python taps/run.py sqlite --config config.json --discover`.

The interpreter needs the tap's third-party packages only. Nothing is added to `sys.path`, so a virtual environment
that has no Streamline, or another version of it, serves as well.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

PACKAGE = "streamline_taps"


def main(argv: list[str]) -> int:
    """Runs the connector named by the first argument with the rest; returns its exit code."""
    here = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 (pathlib would cost every start 5 ms)
    # Python puts a script's folder first on the path, where `duckdb/` or `files/` would hide packages.
    if sys.path and os.path.realpath(sys.path[0]) == here:
        del sys.path[0]
    known = sorted(entry.name for entry in os.scandir(here) if os.path.exists(f"{entry.path}/__main__.py"))  # noqa: PTH110
    name = argv[0].removeprefix("tap-") if argv else ""
    if name not in known:
        asked = f"no tap is named {argv[0]!r}" if argv else "name the tap to run"
        print(f"ERROR {asked}: one of {', '.join(known)}", file=sys.stderr)
        return 2
    package = ModuleType(PACKAGE)
    package.__path__ = [here]
    sys.modules[PACKAGE] = package
    connector = importlib.import_module(f"{PACKAGE}.{name}.__main__")
    return int(connector.main(argv[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
