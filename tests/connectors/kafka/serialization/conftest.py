"""A schema registry for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.registry import RegistryStub, registry_stub


@pytest.fixture
def stub() -> Iterator[RegistryStub]:
    with registry_stub() as running:
        yield running
