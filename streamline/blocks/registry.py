"""Which module runs which kind of block; loaded when it is needed."""

from __future__ import annotations

import importlib
from typing import Any

from streamline.blocks.call import BlockCall
from streamline.errors import ConfigError

RUNNERS = {
    "python": "streamline.blocks.python.block",
    "sql": "streamline.blocks.sql",
    "r": "streamline.blocks.r",
}
"""By language; each module has `run(call: BlockCall) -> Any`. Blocks of the type `dbt` have a module of their own."""


def run_block(call: BlockCall) -> Any:
    """Run the block and hand back its output.

    Raises:
        ConfigError: there is no such kind of block in batch pipelines, or it is configured wrongly.
        UserError: its code raised.
        StreamlineError: it failed otherwise.
    """
    block = call.block
    module = "streamline.blocks.dbt" if block.type == "dbt" else RUNNERS.get(block.language)
    if module is None:
        raise ConfigError(
            f"a {block.type} in {block.language} cannot run in this pipeline",
            where=call.where,
            hint=f"write it in one of: {', '.join(RUNNERS)}",
        )
    return importlib.import_module(module).run(call)
