"""Logs that its config lacks a key, with a traceback, and exits 1 at once.

Who: every target that calls `singer.utils.parse_args` with required keys; the SDK's and PipelineWise's do the same in
their own words. Meltano shows the traceback, and the tap's broken pipe beside it.

Wanted: the target is named, not the tap; its reason comes first; nothing is tried again.
"""

from __future__ import annotations

import sys

sys.stderr.write(
    """WARNING stream 'orders' is old
CRITICAL Config is missing required keys: ['password']
Traceback (most recent call last):
  File "/bin/target-shop", line 8, in <module>
    sys.exit(main())
  File "/lib/singer/utils.py", line 91, in check_config
    raise Exception("Config is missing required keys: {}".format(missing_keys))
Exception: Config is missing required keys: ['password']
"""
)
sys.exit(1)
