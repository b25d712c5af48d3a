"""`--resume`: what has completed is not done again."""

from __future__ import annotations

import shutil
import subprocess
import sys

from tests.support.batch import BatchProject, failed

NOTE = "open('log.txt', 'a').write('{}\\n')"


def chain(project: BatchProject) -> None:
    project.block(
        "a",
        f"@data_loader\ndef load(**kwargs):\n    {NOTE.format('a')}\n    return kwargs['day']\n",
        type="data_loader",
    )
    project.block(
        "b",
        f"""
        import os
        @transformer
        def change(day):
            {NOTE.format("b")}
            if not os.path.exists('mended'):
                raise ValueError('broken')
            return day + '!'
        """,
    )
    project.block("c", f"@transformer\ndef show(day):\n    {NOTE.format('c')}\n    return day\n")


def test_a_failed_run_goes_on_from_the_block_that_failed(project: BatchProject) -> None:
    chain(project)
    failed(project.run("--runtime-vars", "day=monday"), "ValueError: broken")
    (project.root / "mended").touch()
    project.run("--resume").expect(0, "resumed", "a .*completed before the run was resumed")
    assert project.lines() == ["a", "b", "b", "c"]
    assert project.output("c") == "monday!"
    # It is the same run, with the variables that it was given.
    runs = project.runs()
    assert [run["status"] for run in runs] == ["completed"]
    assert project.statuses() == {"a": "completed", "b": "completed", "c": "completed"}


def test_where_the_newest_run_completed_nothing_is_done(project: BatchProject) -> None:
    chain(project)
    (project.root / "mended").touch()
    project.run("--runtime-vars", "day=monday").expect(0)
    project.run("--resume").expect(0, "nothing to resume.*completed")
    assert project.lines() == ["a", "b", "c"]


def test_where_nothing_ever_ran_it_is_a_plain_run(project: BatchProject) -> None:
    chain(project)
    (project.root / "mended").touch()
    project.run("--resume", "--runtime-vars", "day=monday").expect(0)
    assert project.lines() == ["a", "b", "c"]


def test_children_that_completed_are_not_run_again(project: BatchProject) -> None:
    project.block(
        "items",
        "@data_loader\ndef load():\n    return [1, 2, 3, 4]\n",
        type="data_loader",
        configuration={"dynamic": True},
    )
    project.block(
        "child",
        """
        import os
        @transformer
        def child(item):
            open('log.txt', 'a').write(f'{item}\\n')
            if item == 3 and not os.path.exists('mended'):
                raise ValueError('three')
            return item * 10
        """,
        configuration={"reduce_output": True},
    )
    project.block("total", "@transformer\ndef total(found):\n    return sum(found)\n")
    failed(project.run(), "child 2: ValueError: three")
    assert sorted(project.lines()) == ["1", "2", "3", "4"]
    (project.root / "mended").touch()
    project.run("--resume").expect(0)
    assert sorted(project.lines()) == ["1", "2", "3", "3", "4"]
    assert project.output("total") == 100
    assert project.children("child") == [10, 20, 30, 40]


def test_a_full_run_runs_every_block_again(project: BatchProject) -> None:
    chain(project)
    (project.root / "mended").touch()
    for _ in range(2):
        project.run("--runtime-vars", "day=monday").expect(0)
    assert project.lines() == ["a", "b", "c"] * 2


def test_what_is_said_about_items_keeps_its_types(project: BatchProject) -> None:
    project.block(
        "items",
        """
        import datetime, decimal
        @data_loader
        def load():
            return [[1, 2], [{'by': datetime.date(2026, 1, 2)}, {'by': (decimal.Decimal('1.50'),)}]]
        """,
        type="data_loader",
        configuration={"dynamic": True},
    )
    project.block(
        "child",
        """
        import os
        @transformer
        def child(item, by, **kwargs):
            open('log.txt', 'a').write(f'{by!r}\\n')
            assert os.path.exists('mended')
        """,
    )
    failed(project.run())
    (project.root / "mended").touch()
    project.run("--resume").expect(0)
    lines = project.lines()
    assert sorted(lines[:2]) == sorted(lines[2:]) == ["(Decimal('1.50'),)", "datetime.date(2026, 1, 2)"]


def rerun(project: BatchProject, uuid: str = "items") -> None:
    """Have the block run again when the run goes on."""
    shutil.rmtree(project.root / ".streamline" / "data" / "p" / uuid)


def mend(project: BatchProject) -> None:
    (project.root / "mended").touch()


NEEDS_MENDING = "    import os\n    assert os.path.exists('mended')\n"
ITEMS = "@data_loader\ndef load():\n    return [0, 1, 2, 3]\n"


def test_a_block_that_was_not_dynamic_when_it_ran_is_run_again(project: BatchProject) -> None:
    project.block("items", ITEMS, type="data_loader")
    project.block("child", "@transformer\ndef child(item):\n    return item + 1\n")
    failed(project.run(), "TypeError")
    project.entries["blocks"][0]["configuration"] = {"dynamic": True}
    project.save()
    project.run("--block-uuid", "child").expect(
        2, "'items'.*was not dynamic when its output was stored", "run it again"
    )
    project.run("--resume").expect(0)
    assert project.children("child") == [1, 2, 3, 4]


def test_children_that_a_condition_skipped_keep_their_numbers(project: BatchProject) -> None:
    project.block("items", ITEMS, type="data_loader", configuration={"dynamic": True})
    project.block("child", "@transformer\ndef child(item):\n    return item\n")
    project.block(
        "odd", "@condition\ndef odd(item):\n    return item % 2 == 1\n", type="conditional", upstream=["child"]
    )
    project.block(
        "behind", "@transformer\ndef behind(item, dynamic_block_index, **_):\n    return dynamic_block_index\n"
    )
    project.block("broken", f"@transformer\ndef broken(item):\n{NEEDS_MENDING}", upstream=["child"])
    failed(project.run())
    mend(project)
    rerun(project, "behind")
    project.run("--resume").expect(0)
    assert project.children("behind") == [1, 3]
    rerun(project, "behind")
    project.run("--block-uuid", "behind").expect(0)
    assert project.children("behind") == [1, 3]


def test_a_condition_that_has_said_no_is_not_asked_again(project: BatchProject) -> None:
    project.block("a", "@data_loader\ndef load():\n    return 1\n", type="data_loader")
    project.block("b", "@transformer\ndef b(x):\n    return x\n")
    project.block(
        "asked",
        "import os\n@condition\ndef asked(x):\n    return os.path.exists('mended')\n",
        type="conditional",
        upstream=["b"],
    )
    project.block("broken", f"@transformer\ndef broken(x):\n{NEEDS_MENDING}", upstream=["a"])
    failed(project.run())
    mend(project)
    project.run("--resume").expect(0)
    assert project.statuses() == {"a": "completed", "b": "skipped", "broken": "completed"}


def test_variables_keep_their_types(project: BatchProject) -> None:
    project.block(
        "a",
        """
        import os
        @data_loader
        def load(**kwargs):
            open('log.txt', 'a').write(repr({name: kwargs[name] for name in 'dntfm'}) + '\\n')
            assert os.path.exists('mended')
        """,
        type="data_loader",
    )
    values = "{'d': date(2026, 1, 2), 'n': Decimal('1.50'), 't': (1, 2), 'f': float('nan'), 'm': {1: 2}}"
    script = "from datetime import date; from decimal import Decimal; import streamline\n"
    script += f"streamline.Pipeline('p').execute_sync({values})\n"
    ran = subprocess.run([sys.executable, "-c", script], cwd=project.root, capture_output=True, text=True, check=False)
    assert "PipelineFailed" in ran.stderr
    for _ in range(2):  # what a resumed run was given counts as well when it is resumed once more
        failed(project.run("--resume", "--runtime-vars", "n=2"))
    mend(project)
    project.run("--resume").expect(0)
    first, *others = project.lines()
    assert first.startswith(
        "{'d': datetime.date(2026, 1, 2), 'n': Decimal('1.50'), 't': (1, 2), 'f': nan, 'm': {1: 2}}"
    )
    assert others == [first.replace("Decimal('1.50')", "2")] * 3


def test_variables_that_another_wrote_are_not_read(project: BatchProject) -> None:
    project.block("a", f"@data_loader\ndef load(**kwargs):\n{NEEDS_MENDING}", type="data_loader")
    script = "import streamline\nstreamline.Pipeline('p').execute_sync({'t': (1, 2)})\n"
    subprocess.run([sys.executable, "-c", script], cwd=project.root, capture_output=True, check=False)
    (project.root / ".streamline" / "pickle.key").unlink()
    project.run("--resume").expect(1, "are not signed with the project's key")


def test_a_block_run_alone_in_between_takes_nothing_away(project: BatchProject) -> None:
    project.block("items", ITEMS, type="data_loader", configuration={"dynamic": True})
    project.block(
        "child",
        """
        import os
        @transformer
        def child(item):
            open('log.txt', 'a').write(f'{item}\\n')
            assert item != 2 or os.path.exists('mended')
        """,
    )
    project.block("other", "@data_loader\ndef load():\n    return 5\n", type="data_loader")
    failed(project.run())
    project.run("--block-uuid", "other").expect(0)
    mend(project)
    project.run("--resume").expect(0)
    assert sorted(project.lines()) == ["0", "1", "2", "2", "3"]


def test_children_of_what_is_made_anew_are_made_anew(project: BatchProject) -> None:
    project.block(
        "items",
        """
        import os
        @data_loader
        def load():
            return [10, 11, 12] if os.path.exists('fewer') else [0, 1, 2, 3, 4]
        """,
        type="data_loader",
        configuration={"dynamic": True},
    )
    project.block(
        "child",
        """
        import os
        @transformer
        def child(item):
            assert item not in (1, 12) or os.path.exists('mended')
            return item
        """,
    )
    failed(project.run(), "child 1")
    (project.root / "fewer").touch()
    rerun(project)
    failed(project.run("--resume"), "child 2")
    mend(project)
    project.run("--resume").expect(0)
    assert project.children("child") == [10, 11, 12]


def test_a_block_is_run_again_where_the_pipeline_now_gives_it_something_else(project: BatchProject) -> None:
    project.block("items", ITEMS, type="data_loader", configuration={"dynamic": True})
    project.block("child", "@transformer\ndef child(item):\n    return item\n")
    project.block("behind", "@transformer\ndef behind(item):\n    return item\n")
    project.block("one", "@data_loader\ndef load():\n    return 1\n", type="data_loader")
    project.block("sum", "@transformer\ndef add(*numbers):\n    return sum(numbers)\n", upstream=["one"])
    project.block("two", "@data_loader\ndef load():\n    return 2\n", type="data_loader")
    project.block("broken", f"@transformer\ndef broken(x):\n{NEEDS_MENDING}", upstream=["one"])
    failed(project.run())
    for entry in project.entries["blocks"]:
        if entry["uuid"] == "child":
            entry["configuration"] = {"reduce_output": True}
        elif entry["uuid"] == "sum":
            entry["upstream_blocks"] = ["one", "two"]
    project.save()
    mend(project)
    project.run("--resume").expect(0, r"child +completed[^\n]*resumed")
    assert project.output("behind") == [0, 1, 2, 3]
    assert project.output("sum") == 3


def test_a_block_is_run_on_the_outputs_of_one_that_was_renamed(project: BatchProject) -> None:
    project.block("items", ITEMS, type="data_loader", configuration={"dynamic": True})
    project.block("child", "@transformer\ndef child(item):\n    return item + 1\n")
    project.block("behind", "@transformer\ndef behind(item):\n    return item * 2\n")
    project.run().expect(0)
    project.command("rename", "items", "numbers").expect(0)
    project.command("rename", "child", "next").expect(0)
    project.run("--block-uuid", "behind").expect(0)
    assert project.children("behind") == [2, 4, 6, 8]
    assert project.children("next") == [1, 2, 3, 4]
    project.command("remove", "behind").expect(0, "stored output")
    assert not (project.root / ".streamline/data/p/behind").exists()
