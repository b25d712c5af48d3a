"""What workers call in tests: the function `run(port)` of a file in the bench's folder."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from streamline.processes.worker import Port


def perform(payload: tuple[str, Any], port: Port) -> Any:
    """Run the file and return what `run` returns. The file has a function `meet(count)` and a name `arguments`."""
    path = Path(payload[0])

    def meet(count: int) -> None:
        """Wait until so many processes are here."""
        path.with_name(f"here-{os.getpid()}").touch()
        while len(list(path.parent.glob("here-*"))) < count:
            time.sleep(0.002)

    names: dict[str, Any] = {"__file__": str(path), "meet": meet, "arguments": payload[1]}
    exec(compile(path.read_text(), str(path), "exec"), names)
    return names["run"](port)


def nothing(payload: object, port: Port) -> None:
    """Do nothing."""
