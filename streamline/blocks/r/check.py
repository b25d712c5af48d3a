"""Check R blocks: that R is installed, and that their files are R and define the block's function."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from streamline.blocks.call import block_text, shown_block
from streamline.errors import ConfigError

if TYPE_CHECKING:
    from streamline.pipeline.model import Block
    from streamline.project.project import Project
    from streamline.project.render import Renderer

FUNCTIONS = {
    "data_loader": ("load_data",),
    "transformer": ("transform",),
    "data_exporter": ("export_data",),
    "custom": ("custom", "transform_custom", "load_data", "transform", "export_data"),
}
"""What the function of each type of block is called; a file of a custom block defines one of several."""

_PARSE = (
    "tryCatch(invisible(parse(commandArgs(TRUE)[1], keep.source = FALSE, encoding = 'UTF-8')), "
    "error = function(e) { cat(conditionMessage(e)); quit(status = 3) })"
)


def check_block(project: Project, block: Block, renderer: Renderer | None = None) -> None:
    """Check that the block can run, without R reading its file.

    Raises:
        ConfigError: no block of its type is written in R, R is not installed, its file is no UTF-8 text, or the
            name of its function stands nowhere in it.
    """
    where = shown_block(project, block)
    names = FUNCTIONS.get(block.type)
    if names is None:
        raise ConfigError(
            f"a {block.type} cannot be written in R",
            where=where,
            hint=f"R blocks are: {', '.join(FUNCTIONS)}",
            code="block.wrong_language",
        )
    text = block_text(block, where)
    code = re.sub(r"#.*", "", text)
    # Any mention counts: a function may come by assign() or source(), and R itself says more when it runs.
    if not any(re.search(rf"(?<![\w.]){name}(?![\w.])", code) for name in names) and "source" not in code:
        shown = " or ".join(f"{name}()" for name in names)
        raise ConfigError(
            f"the file defines no function {shown}",
            where=where,
            hint=f"write `{names[0]} <- function({'' if block.type == 'data_loader' else 'df_1, '}...) {{ … }}`",
            code="r.function_missing",
        )
    rscript(where)


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


def rscript(where: str) -> str:
    """Return the path of Rscript.

    Raises:
        ConfigError: it is not on PATH.
    """
    program = shutil.which("Rscript")
    if program is None:
        raise ConfigError(
            "R is not installed: there is no Rscript on PATH",
            where=where,
            hint="install R: `apt install r-base-core` (Debian), `brew install r` (macOS), or see cran.r-project.org",
            code="r.not_installed",
        )
    return os.path.abspath(program)  # noqa: PTH100
