"""What goes wrong with stored outputs."""

from __future__ import annotations

from streamline.errors import StreamlineError


class OutputError(StreamlineError):
    """An output cannot be stored, or what is stored cannot be read."""

    code = "output.invalid"
