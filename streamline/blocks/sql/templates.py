"""Templates for new SQL blocks. Each runs unchanged."""

from __future__ import annotations

from collections.abc import Sequence

from streamline.pipeline.kinds import Template


def template(block_type: str, pipeline_type: str) -> Template | None:
    """Return the template of an SQL block; None: its type has none."""
    return _select if block_type in ("data_loader", "transformer", "data_exporter") else None


def _select(upstream: Sequence[str]) -> str:
    if not upstream:
        return "select 1 as id\n"
    frames = ", ".join(f"df_{number} is {uuid}" for number, uuid in enumerate(upstream, 1))
    return f"{f'-- {frames}' if len(upstream) > 1 else ''}\nselect *\nfrom {{{{ df_1 }}}}\n".lstrip()
