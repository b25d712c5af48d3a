"""Which parameters ask for tables: by annotations of every spelling, and by `as_frame=True`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from streamline.blocks.python.annotations import wanted_frames
from streamline.blocks.python.block import signature_of
from streamline.blocks.python.file import BlockFile, PythonFile
from streamline.outputs.frames import Frames

HEADER = """
from typing import Annotated, Dict, List, Optional, Union, TYPE_CHECKING
import pandas, polars, pyarrow
import pandas as pd
import polars as pl
import pyarrow as pa
from pandas import DataFrame
if TYPE_CHECKING:
    import pandas as checked
    from polars import DataFrame as PolarsFrame
"""


def _wanted(definition: str, tmp_path: Path, header: str = HEADER) -> dict[str, Frames]:
    path = tmp_path / "block.py"
    path.write_text(header + textwrap.dedent(definition))
    file = PythonFile(BlockFile("clean", str(path)))
    function = file.only("transformer")
    return wanted_frames(function, signature_of(function), file.imports)


@pytest.mark.parametrize(
    ("annotation", "frames"),
    [
        ("pd.DataFrame", Frames(form="single")),
        ("pandas.DataFrame", Frames(form="single")),
        ("DataFrame", Frames(form="single")),
        ("'pd.DataFrame'", Frames(form="single")),
        ("'checked.DataFrame'", Frames(form="single")),
        ("Optional[pd.DataFrame]", Frames(form="single")),
        ("'Optional[pd.DataFrame]'", Frames(form="single")),
        ("Optional['checked.DataFrame']", Frames(form="single")),
        ("pd.DataFrame | None", Frames(form="single")),
        ("Annotated[pd.DataFrame, 'orders']", Frames(form="single")),
        ("dict[str, pd.DataFrame]", Frames(form="dict")),
        ("Dict[str, 'pd.DataFrame']", Frames(form="dict")),
        ("list[pd.DataFrame]", Frames(form="list")),
        ("Union[pd.DataFrame, Dict[str, pd.DataFrame]]", Frames(form="any")),
        ("pl.DataFrame", Frames(library="polars", form="single")),
        ("'PolarsFrame'", Frames(library="polars", form="single")),
        ("List[pl.DataFrame]", Frames(library="polars", form="list")),
        ("pa.Table", Frames(library="pyarrow", form="single")),
        ("dict[str, pa.Table]", Frames(library="pyarrow", form="dict")),
        ("dict", None),
        ("list[dict]", None),
        ("'no such thing'", None),
        ("'Unknown'", None),
        ("1 + 1", None),
        ("pd.Series", None),
    ],
)
def test_annotations(annotation: str, frames: Frames | None, tmp_path: Path) -> None:
    definition = f"@transformer\ndef clean(data: {annotation}, *args, **kwargs): ..."
    expected = {} if frames is None else {"data": frames}
    assert _wanted(definition, tmp_path) == expected
    assert _wanted(definition, tmp_path, f"from __future__ import annotations\n{HEADER}") == expected


def test_every_parameter_asks_for_itself(tmp_path: Path) -> None:
    wanted = _wanted("@transformer\ndef clean(a, b: pd.DataFrame, *rest: pl.DataFrame, c=1, **kwargs): ...", tmp_path)
    assert wanted == {"b": Frames(form="single"), "rest": Frames(library="polars", form="single")}


def test_as_frame_holds_for_parameters_without_such_an_annotation(tmp_path: Path) -> None:
    wanted = _wanted("@transformer(as_frame=True)\ndef clean(a, b: pl.DataFrame, *rest, **kwargs): ...", tmp_path)
    assert wanted["a"] == wanted["rest"] == Frames(form="any")
    assert wanted["b"] == Frames(library="polars", form="single")
    off = _wanted("@transformer(as_frame=False)\ndef clean(a, *args): ...", tmp_path)
    assert off == {}


def test_a_wrapped_function_is_read_by_its_own_annotations(tmp_path: Path) -> None:
    definition = """
    import functools
    def logged(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            return function(*args, **kwargs)
        return call

    @transformer
    @logged
    def clean(data: "pd.DataFrame", *args): ...
    """
    wanted: dict[str, Any] = _wanted(definition, tmp_path)
    assert wanted == {"data": Frames(form="single")}
