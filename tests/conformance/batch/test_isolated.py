"""Isolated blocks: run with what the pipeline's requirements.txt asks for, beside blocks that see nothing of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.project.wheels import make_wheel
from tests.support.batch import BatchProject

NO_TOOLS = """
    import importlib.util

    @{kind}
    def look(*args, **kwargs):
        print("tools:", importlib.util.find_spec("acme_tools") is not None)
        return [1]
"""


@pytest.fixture(autouse=True)
def wheels(project: BatchProject, tmp_path: Path) -> Path:
    """uv finds packages in one folder and nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    project.env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": str(folder), "PIP_NO_INDEX": "1"}
    return folder


def test_a_block_has_its_requirements_and_hands_frames_on(project: BatchProject, wheels: Path) -> None:
    make_wheel(wheels, "acme-tools", "1.2", body="def twice(frame):\n    return frame * 2\n")
    project.write("pipelines/p/requirements.txt", "acme-tools==1.2\n")
    project.block("load", NO_TOOLS.format(kind="data_loader"), type="data_loader")
    project.block(
        "score",
        """
        import pandas as pd
        from acme_tools import twice

        @transformer
        def score(numbers, *args, **kwargs):
            return twice(pd.DataFrame({"n": [*numbers, 2]}))

        @test
        def test_it_is_tested_there_too(frame, *args):
            import acme_tools
            assert frame["n"].tolist() == [2, 4]
        """,
        configuration={"isolated": True},
    )
    project.block("show", "@transformer\ndef show(frame, **kwargs):\n    print('sum', frame['n'].sum())\n")
    project.command("run", "p", "--test").expect(0, "tools: False", "sum 6")
    project.command("test", "p").expect(0, "score: test_it_is_tested_there_too passed")


def test_requirements_that_cannot_be_met_stop_the_run_before_it_begins(project: BatchProject) -> None:
    project.write("pipelines/p/requirements.txt", "acme-tools==1.2\n")
    project.block("load", "open('ran', 'w')\n@data_loader\ndef f(): ...\n", type="data_loader")
    project.block("score", "@transformer\ndef f(x): ...\n", configuration={"isolated": True})
    project.command("run", "p").expect(2, r"pipelines/p/requirements\.txt: .*acme-tools")
    assert not (project.root / "ran").exists()
    assert project.runs() == []


def test_a_block_alone_that_is_not_isolated_needs_no_environment(project: BatchProject) -> None:
    project.write("pipelines/p/requirements.txt", "acme-tools==1.2\n")
    project.block("load", NO_TOOLS.format(kind="data_loader"), type="data_loader")
    project.block("score", "@transformer\ndef f(x): ...\n", configuration={"isolated": True})
    project.command("run", "p", "--block-uuid", "load").expect(0, "tools: False")
