"""What a test does when the server that it needs cannot be had: skip and say why, or fail.

`STREAMLINE_TESTS_REQUIRE_SERVICES=1` (continuous integration sets it) turns every such skip into a failure,
so that a green run means that nothing was left out.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


class ServiceMissingError(Exception):
    """A server, program or package that a test needs is not to be had here; the text says which and why."""


def services_required() -> bool:
    """Whether a missing service is a failure rather than a skip."""
    return os.environ.get("STREAMLINE_TESTS_REQUIRE_SERVICES", "") not in ("", "0")


def missing(reason: str) -> NoReturn:
    """Skip the test that asks, or fail it where services are required."""
    if services_required():
        pytest.fail(f"STREAMLINE_TESTS_REQUIRE_SERVICES is set, and {reason}", pytrace=False)
    pytest.skip(reason)
