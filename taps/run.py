"""Run a tap of this folder by path: `python taps/run.py sqlite --config config.json --discover`.

The interpreter needs only the tap's third-party packages. Nothing is added to `sys.path`, so the program runs in a
virtual environment without Streamline, or with another version of it.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

PACKAGE = "streamline_taps"


def main(argv: list[str]) -> int:
    """Run the tap named by the first argument with the other arguments; return its exit code."""
    here = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 (pathlib would add 5 ms to every start)
    # Python puts a script's folder first on the path, where `files/` would hide a package of that name.
    if sys.path and os.path.realpath(sys.path[0]) == here:
        del sys.path[0]
    # The kit is beside this folder: `kit` beside `taps`, or `streamline_kit` beside `streamline_taps`.
    for name, folder in ((PACKAGE, here), ("kit", here.removesuffix("taps") + "kit")):
        package = ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package
    launch = importlib.import_module("kit.launch").launch
    return int(launch("tap", here, PACKAGE, argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
