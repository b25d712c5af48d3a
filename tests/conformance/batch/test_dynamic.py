"""Dynamic blocks: one call per item."""

from __future__ import annotations

import pytest

from tests.support.batch import BatchProject, failed


def loader(project: BatchProject, uuid: str, returned: str, **entry: object) -> None:
    project.block(
        uuid,
        f"import pandas as pd\n@data_loader\ndef load(*args, **kwargs):\n    return {returned}\n",
        type="data_loader",
        configuration={"dynamic": True},
        **entry,
    )


@pytest.mark.parametrize(
    "returned",
    [
        "[{'region': 'US'}, {'region': 'EU'}]",
        "[[{'region': 'US'}, {'region': 'EU'}]]",
        "[[{'region': 'US'}, {'region': 'EU'}], [{'block_uuid': 'us'}, {'block_uuid': 'eu'}]]",
        "pd.DataFrame({'region': ['US', 'EU']})",
    ],
)
def test_every_form_of_a_dynamic_output_gives_a_call_per_item(project: BatchProject, returned: str) -> None:
    loader(project, "load", returned)
    project.block(
        "child",
        """
        @transformer
        def child(item, *args, **kwargs):
            return [item['region'], kwargs['dynamic_block_index']]
        """,
    )
    project.run().expect(0, "child .*2 calls")
    assert project.children("child") == [["US", 0], ["EU", 1]]


def test_metadata_reach_the_childs_keyword_arguments(project: BatchProject) -> None:
    loader(project, "load", "[[1, 2], [{'block_uuid': 'one', 'word': 'a'}, {'block_uuid': 'two', 'word': 'b'}]]")
    project.block("child", "@transformer\ndef child(item, **kwargs):\n    return kwargs['word']\n")
    project.run().expect(0)
    assert project.children("child") == ["a", "b"]


def test_children_of_children_and_a_gathered_list(project: BatchProject) -> None:
    loader(project, "load", "[1, 2, 3]")
    project.block("square", "@transformer\ndef square(item):\n    return item ** 2\n")
    project.block("add", "@transformer\ndef add(item):\n    return item + 1\n", configuration={"reduce_output": True})
    project.block("show", "@transformer\ndef show(found):\n    return found\n")
    project.run().expect(0)
    assert project.children("square") == [1, 4, 9]
    assert project.children("add") == [2, 5, 10]
    assert project.output("show") == [2, 5, 10]


def test_several_dynamic_parents_are_multiplied(project: BatchProject) -> None:
    loader(project, "a", "[1, 2]")
    loader(project, "b", "['x', 'y', 'z']")
    project.block(
        "pair", "@transformer\ndef pair(number, letter):\n    return f'{number}{letter}'\n", upstream=["a", "b"]
    )
    project.run().expect(0)
    assert project.children("pair") == ["1x", "1y", "1z", "2x", "2y", "2z"]


def test_a_child_may_be_dynamic_itself(project: BatchProject) -> None:
    loader(project, "a", "[1, 2]")
    project.block(
        "b",
        "@transformer\ndef b(item):\n    return list(range(item + 1))\n",
        configuration={"dynamic": True},
    )
    project.block("c", "@transformer\ndef c(item):\n    return item * 10\n", configuration={"reduce_output": True})
    project.block("d", "@transformer\ndef d(found):\n    return found\n")
    project.run().expect(0)
    assert project.output("d") == [0, 10, 0, 10, 20]


def test_one_failed_child_leaves_the_others_and_what_follows_them(project: BatchProject) -> None:
    loader(project, "load", "[1, 0, 2]")
    project.block("divide", "@transformer\ndef divide(item):\n    return 10 / item\n")
    project.block("show", "@transformer\ndef show(item):\n    open('log.txt', 'a').write(f'{item}\\n')\n")
    completed = project.run()
    failed(completed, r"divide: transformers/divide.py:3: child 1: ZeroDivisionError", "3 calls, 1 failed")
    assert sorted(project.lines()) == ["10.0", "5.0"]
    assert project.statuses()["show"] == "upstream_failed"


def test_a_limit_on_children_fails_or_cuts(project: BatchProject) -> None:
    loader(project, "load", "list(range(5))")
    project.block("child", "@transformer\ndef child(item):\n    return item\n")
    project.keys["dynamic_blocks"] = {"max_child_block_runs": 3}
    project.save()
    failed(project.run("--json"), "block.too_many_children", "on_max_child_block_runs_exceeded")
    project.keys["dynamic_blocks"]["on_max_child_block_runs_exceeded"] = "limit"
    project.save()
    project.run().expect(0, "3 of 5 items")
    assert project.children("child") == [0, 1, 2]


def test_a_limit_on_how_many_run_at_once(project: BatchProject) -> None:
    loader(project, "load", "list(range(6))")
    project.block(
        "child",
        """
        import time
        @transformer
        def child(item):
            open('log.txt', 'a').write('+')
            time.sleep(0.1)
            open('log.txt', 'a').write('-')
        """,
    )
    project.keys["dynamic_blocks"] = {"max_concurrent_child_block_runs": 2}
    project.save()
    project.run().expect(0)
    running = most = 0
    for sign in (project.root / "log.txt").read_text():
        running += 1 if sign == "+" else -1
        most = max(most, running)
    assert most <= 2


def test_a_list_of_one_that_a_child_hands_on_is_its_item(project: BatchProject) -> None:
    loader(project, "load", "[1, 2]")
    project.block("child", "@transformer\ndef child(item):\n    return [{'n': item}]\n")
    project.block("grandchild", "@transformer\ndef grandchild(item):\n    return item['n']\n")
    project.run().expect(0)
    assert project.children("grandchild") == [1, 2]


def test_no_items_are_no_calls(project: BatchProject) -> None:
    loader(project, "load", "[]")
    project.block("child", "@transformer\ndef child(item):\n    return item\n", configuration={"reduce_output": True})
    project.block("show", "@transformer\ndef show(found):\n    return found\n")
    project.run().expect(0)
    assert project.output("show") == []


def test_what_cannot_be_split_into_items_is_said(project: BatchProject) -> None:
    loader(project, "load", "42")
    project.block("child", "@transformer\ndef child(item):\n    return item\n")
    failed(project.run("--json"), "output.not_items", "data_loaders/load.py")


def test_a_block_behind_children_can_be_run_alone(project: BatchProject) -> None:
    loader(project, "load", "[1, 2]")
    project.block("child", "@transformer\ndef child(item):\n    return item * 10\n")
    project.run().expect(0)
    project.write("transformers/child.py", "@transformer\ndef child(item):\n    return item * 100\n")
    project.run("--block-uuid", "child").expect(0)
    assert project.children("child") == [100, 200]


def test_what_is_said_about_items_may_be_of_any_type_and_never_meets_the_runner(project: BatchProject) -> None:
    project.block(
        "items",
        """
        import os
        open('log.txt', 'a').write(f'{os.environ.get("STREAMLINE_RUN_ID") is not None}\\n')

        class Own:
            kind = 'own'

        @data_loader
        def load():
            return [[1, 2], [{'by': Own()}, {}]]
        """,
        type="data_loader",
        configuration={"dynamic": True},
    )
    project.block(
        "child", "@transformer\ndef child(item, **kwargs):\n    return getattr(kwargs.get('by'), 'kind', '')\n"
    )
    project.run().expect(0)
    assert project.children("child") == ["own", ""]
    # The classes of its objects are loaded in workers, which bear the run's id, and in no other process.
    assert set(project.lines()) == {"True"}


def test_a_failure_beside_a_parent_without_items_stops_what_is_behind(project: BatchProject) -> None:
    load = "@data_loader\ndef load():\n    "
    project.block("none", load + "return []\n", type="data_loader", configuration={"dynamic": True})
    project.block("bad", load + "raise ValueError('bad')\n", type="data_loader")
    project.block(
        "child",
        "@transformer\ndef child(bad, item):\n    return item\n",
        upstream=["bad", "none"],
        configuration={"reduce_output": True},
    )
    project.block("export", "@custom\ndef export(found):\n    open('log.txt', 'a').write('exported')\n", type="custom")
    failed(project.run(), "ValueError: bad")
    assert project.lines() == []
    assert project.statuses()["child"] == project.statuses()["export"] == "upstream_failed"
