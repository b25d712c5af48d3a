"""A transformer block that takes a DataFrame and adds one column, whole command.

The reference is the same column added by the shortest program that one would write by hand (orjson, line by line),
between the same tap and target in a shell pipe.
"""

from __future__ import annotations

from seeing_records import measure

TRANSFORMER = """\
from streamline.decorators import transformer


@transformer
def add(frame, *args, **kwargs):
    frame["gross"] = frame["total"] * 1.19
    return frame
"""

if __name__ == "__main__":
    measure("arrow transformer", doc=__doc__, job="add", bar=150_000, transformer=TRANSFORMER)
