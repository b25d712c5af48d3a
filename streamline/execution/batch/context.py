"""What is the same for all tasks of a batch run."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from streamline.execution.run import Run


class RunFacts(msgspec.Struct, kw_only=True):
    """A run's constants.

    Args:
        execution_date: when it first began, in UTC.
        variables: the pipeline's, the trigger's and the runtime's, the later ones winning.
        runtime: names of those that came from outside.
    """

    run: Run
    execution_date: datetime
    variables: dict[str, Any]
    runtime: tuple[str, ...]
