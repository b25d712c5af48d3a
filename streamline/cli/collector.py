"""The garbage collector of the process of a command.

Imports make tens of thousands of objects that live as long as the process. The collector would look at them some eighty
times while a command starts and three times while the interpreter ends: a sixth of a run that moves nothing.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamline.execution.events import Event

_USUAL = gc.get_threshold()
_PATIENT = 200_000
"""New objects before a collection while a command starts. A threshold, for commands that turn out to work for long."""


def while_starting() -> None:
    """Hardly collect anything until a run is planned, if this is a command that runs something."""
    gc.set_threshold(_PATIENT)


def when_planned(event: Event) -> None:
    """Collect as usual from the plan of a run on, and leave out what exists then. Subscribes to a run."""
    from streamline.execution.events import RunPlanned

    if isinstance(event, RunPlanned):
        gc.freeze()
        gc.set_threshold(*_USUAL)


def when_ending() -> None:
    """Leave what exists to the operating system: the process ends, and everything that has to be closed is closed."""
    gc.freeze()
