"""`python -m streamline` is the `streamline` command."""

import os
import sys

# `-m` puts the working folder first: a project's `json.py` would be imported in place of the library's. A folder that
# contains this package is kept: it may be run from there without being installed.
if not sys.flags.safe_path and not os.path.samefile(sys.path[0] or ".", os.path.dirname(os.path.dirname(__file__))):  # noqa: PTH120, PTH121
    del sys.path[0]

from streamline.cli.main import main

main()
