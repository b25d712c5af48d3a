"""What `streamline check` finds, whatever the type of the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

Problem: TypeAlias = Literal["configuration", "connection"]


class Checked(msgspec.Struct, kw_only=True):
    """One thing that was checked.

    Args:
        what: its kind: the type of a block, `plan`, `environment`, `profile`, ….
        block: its uuid; None for the pipeline as a whole.
        plugin: what else names it: a plugin, a profile.
        problem: None if all is well.
        detail: what was found, or what is wrong.
        where: `file:line` or plugin.
        hint: what to do.
    """

    what: str
    block: str | None = None
    plugin: str | None = None
    problem: Problem | None = None
    detail: str = ""
    where: str | None = None
    hint: str | None = None

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return self.problem is None


Report: TypeAlias = Callable[[Checked], None]
