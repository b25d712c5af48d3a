"""What the parts of an integration run share."""

from __future__ import annotations

from streamline.execution.run import Run as RunContext
from streamline.execution.run import RunOptions

__all__ = ["RunContext", "RunOptions"]
