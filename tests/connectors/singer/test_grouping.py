"""Which streams share a tap process."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamline.connectors.singer.catalog import CatalogStream
from streamline.connectors.singer.grouping import group_streams, owner
from streamline.connectors.singer.selection import SelectedStream


def stream(name: str, *, method: str = "FULL_TABLE", parallel: bool = False, parent: str | None = None):
    return SelectedStream(id=name, stream=name, replication_method=method, run_in_parallel=parallel, parent=parent)


def ids(groups) -> list[tuple[str, ...]]:
    return [tuple(stream.id for stream in group.streams) for group in groups]


def test_streams_share_a_process_unless_they_ask_for_their_own() -> None:
    groups = group_streams([stream("a"), stream("b", parallel=True), stream("c"), stream("d", parallel=True)])
    assert ids(groups) == [("a", "c"), ("b",), ("d",)]
    assert [group.id for group in groups] == ["*", "b", "d"]
    assert [group.parallel for group in groups] == [False, True, True]


def test_streams_that_all_belong_together_are_the_shared_group() -> None:
    for streams in (
        [stream("a")],
        [stream("a", parallel=True)],
        [stream("a", parent="b", parallel=True), stream("b")],
    ):
        (group,) = group_streams(streams)
        assert (group.id, group.parallel, len(group.streams)) == ("*", False, len(streams))


def test_a_parent_stays_with_its_children_and_theirs() -> None:
    streams = [
        stream("comments", parent="issues", parallel=True),
        stream("issues", parent="repos"),
        stream("repos"),
        stream("users"),
    ]
    assert ids(group_streams(streams)) == [("users",), ("comments", "issues", "repos")]


def test_children_of_a_parent_that_is_not_read_stay_together() -> None:
    streams = [stream("a", parent="p", parallel=True), stream("b", parent="p"), stream("c", parallel=True)]
    assert ids(group_streams(streams)) == [("a", "b"), ("c",)]
    further = [stream("x", parent="y", parallel=True), stream("z", parallel=True)]
    assert ids(group_streams(further, parents={"y": "z"})) == [("x", "z")]


def test_log_based_streams_share_one_log_and_one_process() -> None:
    streams = [
        stream("a", method="LOG_BASED", parallel=True),
        stream("b", parallel=True),
        stream("c", method="LOG_BASED"),
        stream("d", method="INCREMENTAL"),
    ]
    assert ids(group_streams(streams)) == [("d",), ("a", "c"), ("b",)]


def test_a_tap_with_a_state_of_its_own_shape_is_never_sharded() -> None:
    streams = [stream("a", parallel=True), stream("b", parallel=True)]
    assert ids(group_streams(streams, shardable=False)) == [("a", "b")]
    assert group_streams([]) == []


streams = st.lists(
    st.builds(
        lambda name, method, parallel, parent: stream(name, method=method, parallel=parallel, parent=parent),
        st.sampled_from("abcdefgh"),
        st.sampled_from(["FULL_TABLE", "LOG_BASED"]),
        st.booleans(),
        st.none() | st.sampled_from("abcdefghxy"),
    ),
    unique_by=lambda one: one.id,
)


@given(streams)
def test_every_stream_is_in_one_group_and_families_are_whole(chosen: list[SelectedStream]) -> None:
    groups = group_streams(chosen)
    place = {one: number for number, group in enumerate(groups) for one in (stream.id for stream in group.streams)}
    assert sorted(place) == sorted(one.id for one in chosen)
    assert sum(len(group.streams) for group in groups) == len(chosen)
    assert len({group.id for group in groups}) == len(groups)
    assert len({place[one.id] for one in chosen if one.replication_method == "LOG_BASED"}) <= 1
    for one in chosen:
        if one.parent in place:
            assert place[one.id] == place[one.parent]


def named(id: str, name: str) -> SelectedStream:
    return SelectedStream(id=id, stream=name)


def test_a_bookmark_belongs_to_the_process_of_the_stream_that_has_its_key_as_id_or_name() -> None:
    catalog = [CatalogStream({"tap_stream_id": f"id-{name}", "stream": name}) for name in "abc"]
    owns = owner([named("id-a", "a")], [named("id-b", "b")], catalog)
    keys = ["id-a", "a", "page_token", "id-b", "b", "id-c", "c"]
    assert [key for key in keys if owns(key)] == ["id-a", "a", "page_token"]


def test_an_id_is_its_streams_though_another_stream_has_that_name() -> None:
    catalog = [
        CatalogStream({"tap_stream_id": "a", "stream": "a"}),
        CatalogStream({"tap_stream_id": "b", "stream": "a"}),
    ]
    assert owner([named("a", "a")], [named("b", "a")], catalog)("a")
    assert not owner([named("b", "a")], [named("a", "a")], catalog)("a")


def test_without_a_catalog_every_bookmark_is_the_one_processs() -> None:
    assert owner([], [], [])("anything")
