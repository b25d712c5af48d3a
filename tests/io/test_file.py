"""Files: what is exported is what is loaded."""

from __future__ import annotations

import gzip
import sys
from datetime import date
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from streamline.errors import ConfigError
from streamline.io.file import FileFormat, FileIO
from tests.support.failures import refuses

FRAME = pd.DataFrame({"id": [1, 2, 3], "name": ["Ann", 'Bö, "b"', None], "score": [1.5, None, -2.0]})


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.ndjson", "a.parquet", "a.xlsx", "a.xml"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    FileIO().export(FRAME, path)
    assert_frame_equal(FileIO().load(path), FRAME, check_dtype=False)
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_json_in_the_readers_own_form(tmp_path: Path) -> None:
    FileIO().export(FRAME, tmp_path / "a.json", orient="records")
    assert (tmp_path / "a.json").read_text().startswith('[{"id":1,"name":"Ann"')
    assert_frame_equal(FileIO().load(str(tmp_path / "a.json")), FRAME, check_dtype=False)


def test_the_index_is_written_where_it_has_a_name(tmp_path: Path) -> None:
    FileIO().export(FRAME[FRAME["id"] > 1], tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == "id,name,score"
    FileIO().export(FRAME.set_index("id"), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == "id,name,score"
    FileIO().export(FRAME, tmp_path / "a.csv", index=True)
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == ",id,name,score"


def test_arguments_go_to_the_reader_and_writer(tmp_path: Path) -> None:
    FileIO().export(FRAME, tmp_path / "a.csv", sep=";")
    assert list(FileIO().load(tmp_path / "a.csv", sep=";", usecols=["id"]).columns) == ["id"]


def test_a_given_format_beats_the_extension(tmp_path: Path) -> None:
    FileIO().export(FRAME, tmp_path / "data.txt", format="csv")
    assert len(FileIO().load(tmp_path / "data.txt", format=FileFormat.CSV)) == 3
    with pytest.raises(ValueError, match=r"'\.txt'"):
        FileIO().load(tmp_path / "data.txt")
    with pytest.raises(ConfigError, match="no format 'avro'") as caught:
        FileIO().load(tmp_path / "data.txt", format="avro")
    assert "parquet" in str(caught.value)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet", "a.xlsx"])
def test_a_limit(tmp_path: Path, name: str) -> None:
    FileIO().export(FRAME, tmp_path / name)
    for limit in (0, 2, 5):
        assert FileIO().load(tmp_path / name, limit=limit)["id"].to_list() == [1, 2, 3][:limit]


def test_several_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    FileIO().export(pd.DataFrame({"n": [1, 2]}), tmp_path / "in" / "a.csv")
    FileIO().export(pd.DataFrame({"n": [3]}), tmp_path / "in" / "deep" / "b.parquet")
    both = [tmp_path / "in" / "a.csv", tmp_path / "in" / "deep" / "b.parquet"]
    for loaded in (
        FileIO().load(file_directories=[tmp_path / "in"]),
        FileIO().load(filepaths=both),
        FileIO().load(both),
        FileIO().load(both[0], filepaths=both[1:]),
    ):
        assert loaded["n"].to_list() == [1, 2, 3]
        assert loaded.index.to_list() == [0, 1, 2]
    assert FileIO().load(both, limit=1)["n"].to_list() == [1]
    with pytest.raises(FileNotFoundError, match="nothing"):
        FileIO().load(file_directories=[tmp_path / "nothing"])


def test_polars_arrow_and_records(tmp_path: Path) -> None:
    for data in (
        pl.DataFrame({"n": [1, 2]}),
        pl.LazyFrame({"n": [1, 2]}),
        pa.table({"n": [1, 2]}),
        [{"n": 1}, {"n": 2}],
    ):
        FileIO().export(data, tmp_path / "a.parquet")
        assert pq.read_table(tmp_path / "a.parquet").column("n").to_pylist() == [1, 2]
    with pytest.raises(ConfigError, match="not str"):
        FileIO().export("text", tmp_path / "a.parquet")


def test_an_export_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    FileIO().export(FRAME, path)
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        FileIO().export(pd.DataFrame({"x": [1, "a", object()]}), path)
    assert_frame_equal(FileIO().load(path), FRAME)
    assert [one.name for one in tmp_path.iterdir()] == ["a.parquet"]


def test_links_and_rights_last(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("n\n1\n")
    (tmp_path / "real.csv").chmod(0o640)
    (tmp_path / "link.csv").symlink_to("real.csv")
    FileIO().export(FRAME, tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").stat().st_mode & 0o777 == 0o640
    assert len(FileIO().load(tmp_path / "real.csv")) == 3


def test_rows_are_added_to_a_csv_file_in_place(tmp_path: Path) -> None:
    FileIO().export(FRAME, tmp_path / "a.csv")
    FileIO().export(FRAME, tmp_path / "a.csv", mode="a", header=False)
    assert len(FileIO().load(tmp_path / "a.csv")) == 6


def test_compression_is_by_the_extension(tmp_path: Path) -> None:
    FileIO().export(FRAME, tmp_path / "a.csv.gz")
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()).startswith(b"id,name,score")


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [("a.xlsx", "openpyxl", "pip install 'streamline[excel]'"), ("a.h5", "tables", "pip install tables")],
)
def test_a_format_whose_package_is_missing(
    tmp_path: Path, name: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with refuses("package.missing", package):
        FileIO().export(FRAME, tmp_path / name)
    with refuses("package.missing", package):
        FileIO().load(tmp_path / name)


def test_exists(tmp_path: Path) -> None:
    assert not FileIO().exists(tmp_path / "a.csv")
    FileIO().export(FRAME, tmp_path / "a.csv")
    assert FileIO().exists(str(tmp_path / "a.csv"))


values = st.fixed_dictionaries(
    {
        "number": st.integers(-(2**62), 2**62),
        "text": st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
        "real": st.floats(-1e9, 1e9).map(lambda one: round(one, 4)),
        "day": st.dates(date(1, 1, 1), date(9999, 12, 31)),
    }
)


@given(rows=st.lists(values, min_size=1, max_size=5), kind=st.sampled_from(["parquet", "csv", "jsonl"]))
def test_any_rows_come_back(rows: list[dict[str, object]], kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / f"a.{kind}"
    FileIO().export(rows, path)
    options = {
        "csv": {"dtype": {"text": str}, "keep_default_na": False},
        "jsonl": {"precise_float": True, "dtype": {"text": str}},
    }
    loaded = FileIO().load(path, **options.get(kind, {}))
    assert loaded["number"].to_list() == [row["number"] for row in rows]
    assert loaded["text"].to_list() == [row["text"] for row in rows]
    assert loaded["real"].to_list() == [row["real"] for row in rows]
    assert [str(day)[:10] for day in loaded["day"]] == [str(row["day"]) for row in rows]
