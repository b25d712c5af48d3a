"""Failures are asserted by their code and by the names that their text must show; their prose may change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from streamline.errors import ConfigError, StreamlineError


@contextmanager
def fails(
    code: str, *names: str, kind: type[StreamlineError] = StreamlineError
) -> Iterator[pytest.ExceptionInfo[StreamlineError]]:
    """Expect an error with this code, whose text shows each of these names (of streams, columns, files, commands)."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code, f"{caught.value.code}: {caught.value}"
    for name in names:
        assert name in str(caught.value), str(caught.value)


@contextmanager
def refuses(code: str, *names: str) -> Iterator[pytest.ExceptionInfo[StreamlineError]]:
    """The same for wrong use or configuration, which ends a command with exit code 2."""
    with fails(code, *names, kind=ConfigError) as caught:
        yield caught
