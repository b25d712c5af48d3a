"""The hop from one block to the next: a chain of 101 small blocks against one block, per hop. Outputs are stored."""

from __future__ import annotations

from batch import BatchProject
from common import Options, Result, finish, interleaved

HOPS = 100
BLOCK = """\
import pandas as pd

from streamline.decorators import custom


@custom
def step(rows=None, *args, **kwargs):
    if rows is None:
        return pd.DataFrame({"id": range(100), "amount": range(100)})
    return rows.assign(amount=rows["amount"] + 1)
"""


def project(options: Options, blocks: int) -> BatchProject:
    """A chain of so many blocks."""
    names = [f"step_{number}" for number in range(blocks)]
    entries = [
        {"uuid": name, "type": "custom", "upstream_blocks": names[number - 1 : number] if number else []}
        for number, name in enumerate(names)
    ]
    files = {f"custom/{name}.py": BLOCK for name in names}
    return BatchProject(options.work / f"batch_hop_{blocks}", entries, files)


def main() -> None:
    """Measure and print."""
    options = Options.parse(__doc__, records=0, rounds=9)
    chains = {"one block": project(options, 1), "chain": project(options, HOPS + 1)}
    times = interleaved({name: chain.run for name, chain in chains.items()}, options.rounds, options.say)
    hop = (times["chain"].median - times["one block"].median) / HOPS * 1000
    finish(
        options,
        Result(
            "hop between two blocks",
            hop,
            "ms",
            bar=10,
            at_most=True,
            details={name: str(seconds) for name, seconds in times.items()},
        ),
    )


if __name__ == "__main__":
    main()
