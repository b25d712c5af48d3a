"""A transformer block that takes `list[dict]` and changes one field, whole command.

The reference is the same change in the shortest program that one would write by hand (orjson, line by line), between
the same tap and target in a shell pipe. That program keeps no ledger, and long decimals do not survive it.
"""

from __future__ import annotations

from seeing_records import measure

TRANSFORMER = """\
from streamline.decorators import transformer


@transformer
def change(rows: list[dict], *args, **kwargs) -> list[dict]:
    for row in rows:
        row["status"] = row["status"].upper()
    return rows
"""

if __name__ == "__main__":
    measure("rows transformer", doc=__doc__, job="change", bar=120_000, aim=250_000, transformer=TRANSFORMER)
