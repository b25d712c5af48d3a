"""Fixtures for tests that drive the real command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.project import Block, Project

MakeProject = Callable[..., Project]


@pytest.fixture
def make_project(tmp_path: Path) -> Iterator[MakeProject]:
    """Makes projects with one pipeline `p` of the blocks given; what they leave running is ended after the test."""
    made: list[Project] = []

    def make(*blocks: Block, **keys: Any) -> Project:
        project = Project(tmp_path / f"shop{len(made) or ''}")
        made.append(project)
        if blocks:
            project.pipeline("p", *blocks, **keys)
        return project

    yield make
    for project in made:
        project.close()
