"""`on_bad_record: quarantine`, where every record is validated against its stream's schema, whole command.

The reference is orjson and jsonschema-rs in a loop, between the same tap and target in a shell pipe.
"""

from __future__ import annotations

from seeing_records import measure

if __name__ == "__main__":
    measure("quarantine", doc=__doc__, job="validate", bar=150_000, destination="on_bad_record: quarantine\n")
