"""Run a target of this folder by path: `python targets/run.py duckdb --config config.json`.

The interpreter needs only the target's third-party packages. Nothing is added to `sys.path`, so the program runs in a
virtual environment without Streamline, or with another version of it.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

PACKAGE = "streamline_targets"


def main(argv: list[str]) -> int:
    """Run the target named by the first argument with the other arguments; return its exit code."""
    here = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 (pathlib would add 5 ms to every start)
    # Python puts a script's folder first on the path, where `duckdb/` would hide the package of that name.
    if sys.path and os.path.realpath(sys.path[0]) == here:
        del sys.path[0]
    # The kit is beside this folder: `kit` beside `targets`, or `streamline_kit` beside `streamline_targets`.
    for name, folder in ((PACKAGE, here), ("kit", here.removesuffix("targets") + "kit")):
        package = ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package
    launch = importlib.import_module("kit.launch").launch
    return int(launch("target", here, PACKAGE, argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
