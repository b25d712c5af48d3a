"""Which calls a block needs, given how its upstream blocks ended."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from streamline.execution.batch.fanout import (
    COMPLETED,
    FAILED,
    SKIPPED,
    UPSTREAM_FAILED,
    CallPlan,
    Finished,
    Instance,
    calls_of,
    is_child,
)
from streamline.execution.batch.task import InputRef


def ref(uuid: str, number: int = 0) -> InputRef:
    return InputRef(block=uuid, type="transformer", folder=f"{uuid}/{number}")


def plain(uuid: str, status: str = COMPLETED, gate: bool | None = None) -> Finished:
    stored = ref(uuid) if status == COMPLETED else None
    return Finished(uuid=uuid, type="data_loader", instances=[Instance(number=0, status=status, ref=stored, gate=gate)])


def parent(uuid: str, items: int) -> Finished:
    return Finished(
        uuid=uuid, type="data_loader", dynamic=True, instances=[Instance(number=0, ref=ref(uuid), items=items)]
    )


def ran(uuid: str, calls: Sequence[CallPlan], *, items: Sequence[int] | None = None, reduce: bool = False) -> Finished:
    """The block that made these calls, all of them well."""
    return Finished(
        uuid=uuid,
        type="transformer",
        child=True,
        dynamic=items is not None,
        reduce=reduce,
        instances=[
            Instance(
                number=number,
                key=call.key,
                status=call.verdict or COMPLETED,
                ref=ref(uuid, number) if call.verdict is None else None,
                items=items[number] if items is not None else None,
            )
            for number, call in enumerate(calls)
        ],
    )


def given_to(call: CallPlan) -> list[tuple[str | None, int | None]]:
    return [(one.folder, one.item) for one in call.inputs]


def test_a_block_with_nothing_upstream_runs_once() -> None:
    assert calls_of([]) == [CallPlan(key=())]


def test_each_upstream_is_one_argument_in_their_order() -> None:
    (call,) = calls_of([plain("b"), plain("a")])
    assert given_to(call) == [("b/0", None), ("a/0", None)]


def test_a_dynamic_parent_gives_one_call_per_item() -> None:
    calls = calls_of([parent("p", 3)])
    assert [given_to(call) for call in calls] == [[("p/0", 0)], [("p/0", 1)], [("p/0", 2)]]
    assert is_child([parent("p", 3)])


def test_no_items_are_no_calls() -> None:
    assert calls_of([parent("p", 0)]) == []


def test_two_dynamic_parents_are_multiplied() -> None:
    calls = calls_of([parent("p", 2), parent("q", 3)])
    assert [[one.item for one in call.inputs] for call in calls] == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_a_plain_upstream_is_given_to_every_child() -> None:
    calls = calls_of([plain("a"), parent("p", 2)])
    assert [given_to(call) for call in calls] == [[("a/0", None), ("p/0", 0)], [("a/0", None), ("p/0", 1)]]


def test_a_child_of_a_child_runs_once_per_child() -> None:
    first = ran("c", calls_of([parent("p", 3)]))
    assert [given_to(call) for call in calls_of([first])] == [[("c/0", None)], [("c/1", None)], [("c/2", None)]]


def test_children_of_one_parent_line_up() -> None:
    first = ran("c", calls_of([parent("p", 3)]))
    second = ran("d", calls_of([parent("p", 3)]))
    calls = calls_of([first, second])
    assert [given_to(call) for call in calls] == [[(f"c/{n}", None), (f"d/{n}", None)] for n in range(3)]


def test_a_child_and_its_parent_line_up() -> None:
    dynamic = parent("p", 2)
    calls = calls_of([dynamic, ran("c", calls_of([dynamic]))])
    assert [given_to(call) for call in calls] == [[("p/0", 0), ("c/0", None)], [("p/0", 1), ("c/1", None)]]


def test_a_child_that_is_dynamic_itself_opens_one_more_axis() -> None:
    middle = ran("c", calls_of([parent("p", 2)]), items=[1, 3])
    calls = calls_of([middle])
    assert [given_to(call) for call in calls] == [[("c/0", 0)], [("c/1", 0)], [("c/1", 1)], [("c/1", 2)]]


def test_reduced_outputs_are_one_list_in_the_items_order() -> None:
    (call,) = calls_of([ran("c", calls_of([parent("p", 3)]), reduce=True)])
    (gathered,) = call.inputs
    assert gathered.parts is not None
    assert [one.folder for one in gathered.parts] == ["c/0", "c/1", "c/2"]
    assert not is_child([ran("c", calls_of([parent("p", 3)]), reduce=True)])


def test_reducing_nothing_gives_an_empty_list() -> None:
    (call,) = calls_of([ran("c", [], reduce=True)])
    assert call.verdict is None
    assert call.inputs[0].parts == ()


def test_a_failed_child_stops_what_is_behind_it_alone() -> None:
    block = ran("c", calls_of([parent("p", 3)]))
    block.instances[1].status, block.instances[1].ref = FAILED, None
    assert [call.verdict for call in calls_of([block])] == [None, UPSTREAM_FAILED, None]
    block.reduce = True
    assert [call.verdict for call in calls_of([block])] == [UPSTREAM_FAILED]


def test_a_skipped_upstream_skips_a_block_whatever_else_failed() -> None:
    assert [call.verdict for call in calls_of([plain("a", FAILED), plain("b", SKIPPED)])] == [SKIPPED]
    assert [call.verdict for call in calls_of([plain("a", FAILED), plain("b")])] == [UPSTREAM_FAILED]


def test_a_gate_that_says_no_skips_what_is_behind_it() -> None:
    assert [call.verdict for call in calls_of([plain("a", gate=False)])] == [SKIPPED]
    assert [call.verdict for call in calls_of([plain("a", gate=True)])] == [None]


def test_a_reduced_list_leaves_out_the_skipped_and_is_skipped_when_all_are() -> None:
    block = ran("c", calls_of([parent("p", 2)]), reduce=True)
    block.instances[0].status, block.instances[0].ref = SKIPPED, None
    (call,) = calls_of([block])
    assert [one.folder for one in call.inputs[0].parts or ()] == ["c/1"]
    block.instances[1].status = SKIPPED
    assert [call.verdict for call in calls_of([block])] == [SKIPPED]


def test_what_would_have_been_children_of_a_failed_parent_is_one_call_that_says_so() -> None:
    failed = Finished(uuid="p", type="data_loader", dynamic=True, instances=[Instance(number=0, status=FAILED)])
    assert [call.verdict for call in calls_of([failed])] == [UPSTREAM_FAILED]


def test_a_child_is_told_which_of_its_parents_say_something_about_their_items() -> None:
    first, second = parent("p", 1), parent("q", 1)
    second.instances[0].described = True
    (call,) = calls_of([first, second])
    assert [one.described for one in call.inputs] == [False, True]


def test_a_failed_or_skipped_upstream_counts_also_beside_a_parent_without_items() -> None:
    for before, verdict in ((plain("x", FAILED), UPSTREAM_FAILED), (plain("x", gate=False), SKIPPED)):
        for upstream in ([before, parent("p", 0)], [parent("p", 0), before]):
            assert [call.verdict for call in calls_of(upstream)] == [verdict]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=3))
def test_products_have_each_combination_once_in_order(sizes: list[int]) -> None:
    calls = calls_of([parent(f"p{number}", size) for number, size in enumerate(sizes)])
    found = [tuple(one.item for one in call.inputs) for call in calls]
    expected = 1
    for size in sizes:
        expected *= size
    assert len(found) == expected
    assert found == sorted(set(found))
    assert len({call.key for call in calls}) == len(calls)


@given(st.lists(st.integers(0, 3), max_size=5))
def test_ragged_children_are_each_met_once(sizes: list[int]) -> None:
    middle = ran("c", calls_of([parent("p", len(sizes))]), items=sizes)
    assert [given_to(call)[0] for call in calls_of([middle])] == [
        (f"c/{number}", item) for number, size in enumerate(sizes) for item in range(size)
    ]
