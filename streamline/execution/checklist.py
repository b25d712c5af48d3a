"""What `streamline check` finds, whatever the type of the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from streamline.errors import StreamlineError
from streamline.project.secrets import Masker

Problem: TypeAlias = Literal["configuration", "connection"]


class Checked(msgspec.Struct, kw_only=True):
    """A result.

    Args:
        what: what was checked: the type of a block, `plan`, `environment`, `profile`, ….
        block: its uuid; None for the pipeline as a whole.
        plugin: the plugin or connection profile.
        problem: None if it is all right.
        detail: what was found, or what is wrong.
        where: `file:line` or plugin.
        hint: what to do.
        code: of the failure.
    """

    what: str
    block: str | None = None
    plugin: str | None = None
    problem: Problem | None = None
    detail: str = ""
    where: str | None = None
    hint: str | None = None
    code: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it is all right."""
        return self.problem is None


class Checklist:
    """Collects the results of a check, masked.

    Args:
        report: called with each result as it comes.
        notify: called with a sentence before something that takes long.
        timeout: seconds that a plugin may take to answer.
    """

    def __init__(
        self,
        masker: Masker,
        report: Callable[[Checked], object],
        notify: Callable[[str], None],
        timeout: float,
    ) -> None:
        self._masker = masker
        self._report = report
        self.notify = notify
        self.timeout = timeout
        self.results: list[Checked] = []

    def passed(self, what: str, block: str | None, detail: str, plugin: str | None = None) -> None:
        """Add a result that is all right."""
        self._add(Checked(what=what, block=block, detail=self._masker.mask(detail), plugin=plugin))

    def failed(
        self,
        what: str,
        block: str | None,
        error: StreamlineError,
        problem: Problem = "configuration",
        plugin: str | None = None,
    ) -> None:
        """Add a failure."""
        self._add(
            Checked(
                what=what,
                block=block,
                plugin=plugin,
                problem=problem,
                detail=self._masker.mask(error.message),
                where=error.where,
                hint=self._masker.mask(error.hint) if error.hint else None,
                code=error.code,
            )
        )

    def _add(self, checked: Checked) -> None:
        self.results.append(checked)
        self._report(checked)
