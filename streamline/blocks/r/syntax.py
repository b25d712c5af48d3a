"""`streamline check` has R parse the files of R blocks."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from streamline.blocks.call import shown_block
from streamline.blocks.r.block import rscript
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.pipeline.model import Block
    from streamline.project.project import Project

_PARSE = (
    "tryCatch(invisible(parse(commandArgs(TRUE)[1], keep.source = FALSE, encoding = 'UTF-8')), "
    "error = function(e) { cat(conditionMessage(e)); quit(status = 3) })"
)


def verify(project: Project, block: Block) -> None:
    """Parse the block's file with R, which runs nothing in it.

    Raises:
        ConfigError: R reports a syntax error.
    """
    shown = shown_block(project, block)
    with tempfile.TemporaryDirectory() as folder:
        file = block.file
        if file is None:
            file = Path(folder) / "block.R"
            file.write_text(block.content or "", "utf-8")
        command = [rscript(shown), "--vanilla", "-e", _PARSE, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 3:  # other exit codes: R itself is broken, which the run reports
        return
    message = done.stdout.partition("\n")[0].removeprefix(f"{file}:")
    line, _, rest = message.partition(":")
    where = f"{shown}:{line}" if block.file is not None and line.isdecimal() else shown
    reason = rest.partition(":")[2].strip() if line.isdecimal() else message
    raise ConfigError(
        f"R syntax error: {reason}", where=where, hint="correct that line or the one above", code="block.syntax"
    )
