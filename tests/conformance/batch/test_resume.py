"""`--resume`: what has completed is not done again."""

from __future__ import annotations

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
    project.run("--resume").expect(0, "goes on", "a .*as the run before left it")
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
