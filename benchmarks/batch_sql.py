"""A SQL block that joins two upstream outputs of 5,000,000 rows, against DuckDB alone over the same Parquet files.

Both write their result to a Parquet file. The block runs alone, on stored outputs (`--block-uuid`); the reference is a
script that imports duckdb and runs one COPY.
"""

from __future__ import annotations

from batch import FRAME, BatchProject
from common import Options, Result, finish, interleaved

LOAD = """\
import pandas as pd

from bench_frame import frame
from streamline.decorators import data_loader


@data_loader
def load(*args, **kwargs):
    return frame({rows}, {seed})
"""
QUERY = (
    "select a.id, a.customer, a.price + b.price as price, a.status, b.note, b.at\n"
    "from {orders} a join {parcels} b on a.id = b.id\nwhere a.paid or b.paid"
)
SCRIPT = """\
import duckdb

with duckdb.connect() as db:
    db.execute('''COPY ({query}) TO 'joined.parquet' (FORMAT parquet)''')
"""


def main() -> None:
    """Measure and print."""
    options = Options.parse(__doc__, records=5_000_000, rounds=7)
    blocks = [
        {"uuid": "orders", "type": "data_loader"},
        {"uuid": "parcels", "type": "data_loader"},
        {"uuid": "joined", "type": "transformer", "language": "sql", "upstream_blocks": ["orders", "parcels"]},
    ]
    stored = ".streamline/data/demo/{}/output_0.parquet"
    query = QUERY.format(orders=f'"{stored.format("orders")}"', parcels=f'"{stored.format("parcels")}"')
    files = {
        "bench_frame.py": FRAME,
        "data_loaders/orders.py": LOAD.format(rows=options.records, seed=1),
        "data_loaders/parcels.py": LOAD.format(rows=options.records, seed=2),
        "transformers/joined.sql": QUERY.format(orders="orders", parcels="parcels"),
        "script.py": SCRIPT.format(query=query),
    }
    project = BatchProject(options.work / "batch_sql", blocks, files)
    project.run()
    sides = {
        "duckdb": lambda: project.script("script.py"),
        "streamline": lambda: project.run("--block-uuid", "joined"),
    }
    times = interleaved(sides, options.rounds, options.say)
    finish(
        options,
        Result(
            "SQL block that joins two large outputs",
            times["streamline"].median / times["duckdb"].median,
            "times DuckDB alone",
            bar=1.2,
            at_most=True,
            details={name: str(seconds) for name, seconds in times.items()},
        ),
    )


if __name__ == "__main__":
    main()
