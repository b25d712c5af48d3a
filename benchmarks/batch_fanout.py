"""A fan-out of 1,000 children of a millisecond each, whole command, outputs stored, gathered by one block behind it."""

from __future__ import annotations

from batch import BatchProject
from common import Options, Result, finish, interleaved

from streamline.outputs.store import open_output

CHILDREN = 1000
LOAD = f"""\
from streamline.decorators import data_loader


@data_loader
def items(*args, **kwargs):
    return [{{"number": number}} for number in range({CHILDREN})]
"""
CHILD = """\
import time

from streamline.decorators import transformer


@transformer
def child(item, *args, **kwargs):
    time.sleep(0.001)
    return {"square": item["number"] ** 2}
"""
GATHER = """\
from streamline.decorators import data_exporter


@data_exporter
def gather(found, *args, **kwargs):
    return sum(one["square"] for one in found)
"""


def main() -> None:
    """Measure and print."""
    options = Options.parse(__doc__, records=0, rounds=9)
    blocks = [
        {"uuid": "items", "type": "data_loader", "configuration": {"dynamic": True}},
        {
            "uuid": "child",
            "type": "transformer",
            "upstream_blocks": ["items"],
            "configuration": {"reduce_output": True},
        },
        {"uuid": "gather", "type": "data_exporter", "upstream_blocks": ["child"]},
    ]
    files = {"data_loaders/items.py": LOAD, "transformers/child.py": CHILD, "data_exporters/gather.py": GATHER}
    project = BatchProject(options.work / "batch_fanout", blocks, files)
    times = interleaved({"streamline": project.run}, options.rounds, options.say)
    total = open_output(project.data / "gather").value()
    if total != sum(number**2 for number in range(CHILDREN)):
        raise SystemExit(f"the sum of all children is {total}")
    finish(
        options,
        Result(
            f"{CHILDREN:,} dynamic children",
            times["streamline"].median,
            "s",
            bar=3,
            at_most=True,
            details={"streamline": str(times["streamline"])},
        ),
    )


if __name__ == "__main__":
    main()
