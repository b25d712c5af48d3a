"""What a run advises about common errors of user code."""

from __future__ import annotations

import pytest

from tests.conformance.batch.test_templates import LOAD
from tests.support.batch import BatchProject, failed


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ("import requestz", "pip install requestz, if that is its package's name; or put it into the pipeline's"),
        ("import requestz.deep as d", "pip install requestz,"),
        ("return kwargs['api_key']", "--runtime-vars api_key=…, or for all under `variables:` in metadata.yaml"),
    ],
)
def test_hints(project: BatchProject, body: str, hint: str) -> None:
    project.block("load", LOAD, type="data_loader")
    project.block("t", f"@transformer\ndef t(x, *args, **kwargs):\n    {body}\n")
    text = failed(project.run()).text
    assert hint in " ".join(text.split())


@pytest.mark.parametrize("body", ["return {}['api_key']", "import pandas.nope", "kwargs['configuration']['x']"])
def test_no_hint_where_none_fits(project: BatchProject, body: str) -> None:
    project.block("load", LOAD, type="data_loader")
    project.block("t", f"@transformer\ndef t(x, *args, **kwargs):\n    {body}\n")
    text = failed(project.run()).text
    assert "pip install" not in text
    assert "--runtime-vars" not in text
