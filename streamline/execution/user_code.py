"""The code of Python blocks in the process of a run: what it imports and reads is its project's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from streamline.errors import ConfigError
from streamline.pipeline.model import PipelineModel
from streamline.project.project import Project
from streamline.project.render import Renderer


@contextmanager
def user_code(project: Project, model: PipelineModel, renderer: Renderer) -> Iterator[None]:
    """Within it, code finds the project's modules, as in the workers of batch pipelines (`from utils.x import y`), and
    secrets and connection profiles that it reads are the project's, rendered with the run's variables.
    """
    blocks = [block for block in model.blocks.values() if block.language == "python"]
    if not blocks:
        yield
        return
    from streamline.blocks.call import block_text
    from streamline.blocks.python import user_modules
    from streamline.io.config import use_renderer
    from streamline.project.current import set_current

    def text() -> str:
        texts: list[str] = []
        for block in blocks:
            with suppress(ConfigError):
                texts.append(block_text(block))
        return "\n".join(texts)

    # At the end: a project's `json.py` does not hide an installed package from other packages.
    added = [str(project.root), str(project.root.parent)]
    sys.path += added
    project_before, renderer_before = set_current(project), use_renderer(renderer)
    user_modules.serve(project.root, text)
    try:
        yield
    finally:
        set_current(project_before)
        use_renderer(renderer_before)
        for path in added:
            with suppress(ValueError):
                sys.path.remove(path)
