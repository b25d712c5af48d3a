"""The files that new R blocks start with. Each runs unchanged."""

from __future__ import annotations

from collections.abc import Sequence

from streamline.pipeline.kinds import Template

_TEXTS = {
    "data_loader": "load_data <- function({parameters}...) {{\n  data.frame(id = 1:3)\n}}\n",
    "transformer": "transform <- function({parameters}...) {{\n  {first}\n}}\n",
    "data_exporter": "export_data <- function({parameters}...) {{\n  print({first})\n}}\n",
}


def template(block_type: str, pipeline_type: str) -> Template | None:
    """Return the template of an R block; None if there is none for its type."""
    text = _TEXTS.get(block_type)
    if text is None:
        return None

    def make(upstream: Sequence[str]) -> str:
        names = [f"df_{number}" for number, _ in enumerate(upstream, 1)]
        return text.format(parameters="".join(f"{name}, " for name in names), first=names[0] if names else "NULL")

    return make
