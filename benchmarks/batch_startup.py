"""What `streamline run` adds to three small pandas functions: a three-block pipeline against a script that calls them.

The script does not store what the functions return; the pipeline does.
"""

from __future__ import annotations

from batch import BatchProject
from common import Options, Result, finish, interleaved

LOAD = """\
import pandas as pd

{}
def load(*args, **kwargs):
    return pd.DataFrame({{"id": range(1000), "amount": [n % 7 * 1.5 for n in range(1000)]}})
"""
CHANGE = """\
import pandas as pd

{}
def change(orders, *args, **kwargs):
    return orders[orders["amount"] > 0].assign(gross=lambda rows: rows["amount"] * 1.21)
"""
EXPORT = """\
import pandas as pd

{}
def export(orders, *args, **kwargs):
    print(len(orders), orders["gross"].sum())
"""
SCRIPT = "from load import load\nfrom change import change\nfrom export import export\n\nexport(change(load()))\n"


def main() -> None:
    """Measure and print."""
    options = Options.parse(__doc__, records=0, rounds=15)
    texts = {"load": ("data_loader", LOAD), "change": ("transformer", CHANGE), "export": ("data_exporter", EXPORT)}
    files = {"script.py": SCRIPT}
    blocks, before = [], []
    for name, (kind, text) in texts.items():
        files[f"{name}.py"] = text.format("")
        files[f"{kind}s/{name}.py"] = text.format(f"from streamline.decorators import {kind}\n\n\n@{kind}")
        blocks.append({"uuid": name, "type": kind, "upstream_blocks": before})
        before = [name]
    project = BatchProject(options.work / "batch_startup", blocks, files)
    sides = {"script": lambda: project.script("script.py"), "streamline": project.run}
    times = interleaved(sides, options.rounds, options.say)
    more = times["streamline"].median - times["script"].median
    finish(
        options,
        Result(
            "three small blocks",
            more,
            "s more than the script",
            bar=0.5,
            at_most=True,
            aim=0.3,
            details={name: str(seconds) for name, seconds in times.items()},
        ),
    )


if __name__ == "__main__":
    main()
