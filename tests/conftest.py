"""Fixtures for tests that drive the real command."""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.services.require import services_required
from tests.support import opened_project, preloaded
from tests.support.preloaded import REPOSITORY
from tests.support.project import Block, Project

# How fast examples are made says only how busy the machine is. Continuous integration tries more of them.
EXAMPLES = 100 if services_required() else 15
settings.register_profile("busy", max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Leave what is collected out of every garbage collection: it lives to the end."""
    gc.disable()
    try:
        _compile_part(session.config)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _compile_part(config: pytest.Config) -> None:
    """Divide the compilation of the tests among the workers of a run: each finds what the others have compiled."""
    worker = getattr(config, "workerinput", None)
    if worker is None or sys.dont_write_bytecode:
        return
    folders = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    modules = sorted({path for folder in folders for path in folder.rglob("test_*.py")})
    for path in modules[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
        if (path.parent / "__init__.py").exists() and not path.is_relative_to(REPOSITORY / "tests/services"):
            # A folder's fixtures say what else is compiled as tests are. What cannot be imported is reported later.
            with contextlib.suppress(Exception, pytest.skip.Exception):
                package = ".".join(path.parent.relative_to(REPOSITORY).parts)
                if (path.parent / "conftest.py").exists():
                    importlib.import_module(f"{package}.conftest")
                importlib.import_module(f"{package}.{path.stem}")


MakeProject = Callable[..., Project]

BACKENDS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
]

EVERY_LOOP = ("tests.processes.test_child", "tests.flow.test_tasks")
"""Modules whose tests run on each event loop everywhere: what differs between the loops. Of the others only uvloop
runs, which `streamline run` uses, except in continuous integration. Those with services run on uvloop everywhere."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests marked `anyio` run once on each event loop that is tried."""
    if "anyio_backend" in metafunc.fixturenames:
        name = metafunc.module.__name__
        every = name in EVERY_LOOP or (services_required() and not name.startswith("tests.services."))
        metafunc.parametrize("anyio_backend", BACKENDS if every else BACKENDS[1:2], indirect=True)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The event loop of the test."""
    backend: tuple[str, dict[str, Any]] = request.param
    if backend[1].get("use_uvloop"):
        pytest.importorskip("uvloop")
    return backend


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


@pytest.fixture
def new_project(tmp_path: Path) -> opened_project.MakeProject:
    """Writes files (path → text) into a folder and opens it as a project."""
    return opened_project.maker(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def preloaded_fork_servers() -> Iterator[None]:
    """Pools of workers that tests make in their own process do not import pandas anew."""
    with preloaded.fork_servers():
        yield
