"""Small helpers under Mage's names."""

from __future__ import annotations

import pytest

from streamline.compat import shared
from streamline.compat.streaming import BasePythonSink, BasePythonSource


def test_mappings() -> None:
    order = {"id": 1, "user": {"name": "Ann", "tags": ["a", "b"]}, "note": ""}
    assert shared.dig(order, "user.tags[1]") == "b"
    assert shared.dig(order, ["user", "name"]) == "Ann"
    assert shared.dig(order, "user.age") is None
    assert shared.dig({"user": {}}, "user.name.first") == {}
    assert shared.extract(order, ["id", "nothing"]) == {"id": 1}
    assert shared.ignore_keys(order, ["user", "note"]) == {"id": 1}
    assert shared.ignore_keys_with_blank_values(order) == {"id": 1, "user": order["user"]}
    assert shared.flatten_dict({"a": {"b": {"c": 1}}, "d": 2}) == {"a.b.c": 1, "d": 2}
    assert shared.get_json_value('{"a": [1, 2]}', "a[1]") == 2
    assert shared.get_json_value("no json", "a") == "no json"
    assert shared.group_by(len, ["a", "bb", "c"]) == {1: ["a", "c"], 2: ["bb"]}
    assert shared.index_by(len, ["a", "bb", "c"]) == {1: "c", 2: "bb"}
    assert shared.merge_dict({"a": 1, "b": 1}, {"b": 2}) == {"a": 1, "b": 2}
    assert shared.merge_dict(None, None) == {}


def test_lists() -> None:
    assert [list(item) for item in shared.batch([1, 2, 3], 2)] == [[1, 2], [3]]
    assert shared.difference([1, 2], [2, 3]) == [1, 3]
    assert shared.find(lambda item: item > 1, [1, 2, 3]) == 2
    assert shared.find(lambda item: item > 5, [1]) is None
    assert shared.find_index(lambda item: item > 1, [1, 2]) == 1
    assert shared.find_index(lambda item: item > 5, [1, 2]) == -1
    assert shared.flatten([[1], [2, 3]]) == [1, 2, 3]
    assert shared.unique_by([1, 2, 3, 4], lambda item: item % 2) == [1, 2]


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [("My pipeline!", "my_pipeline_"), ("1st", "letter_1st"), ('say "x"', "say_x"), ("Émile", "émile"), ("a-b", "a_b")],
)
def test_names(name: str, cleaned: str) -> None:
    assert shared.clean_name(name) == cleaned


def test_names_with_more_allowed() -> None:
    assert shared.clean_name("A-b 1", allow_characters=["-"], case_sensitive=True) == "A-b_1"
    assert shared.clean_name("1st", allow_number=True) == "1st"
    assert shared.camel_to_snake_case("tapStreamID") == "tap_stream_id"
    assert [shared.is_number(item) for item in ("1.5", "x", None, "1e3")] == [True, False, False, True]


def test_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENV", "production")
    assert (shared.get_env(), shared.is_prod(), shared.is_dev(), shared.is_test()) == ("prod", True, False, False)
    monkeypatch.delenv("ENV")
    assert shared.get_env() == "dev"


def test_bases_of_streaming_classes(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    class Source(BasePythonSource):
        def init_client(self) -> None:
            self.client = "connected"

        def batch_read(self, handler: object) -> None:
            handler([{"n": 1}])  # type: ignore[operator]

    source = Source(checkpoint_path=f"{tmp_path}/place.json")
    seen: list[object] = []
    source.batch_read(seen.extend)
    assert (source.client, seen, source.checkpoint) == ("connected", [{"n": 1}], None)
    source.checkpoint = {"at": 7}
    source.update_checkpoint()
    assert Source(checkpoint_path=f"{tmp_path}/place.json").checkpoint == {"at": 7}

    class Sink(BasePythonSink):
        def batch_write(self, messages: list[object]) -> None:
            self.print(len(messages))

    Sink().write({"n": 1})
    assert capsys.readouterr().out == "[Sink] 1\n"


def test_a_sparse_matrix_is_a_frame() -> None:
    class csr_matrix:  # noqa: N801 - named as SciPy's, which is not installed
        shape = (1, 2)

        def toarray(self) -> list[list[int]]:
            return [[1, 2]]

    assert shared.convert_matrix_to_dataframe(csr_matrix()).to_dict("records") == [{"0": 1, "1": 2}]
    assert shared.convert_matrix_to_dataframe([1]) == [1]
