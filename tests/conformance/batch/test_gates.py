"""Sensors, conditions and callbacks."""

from __future__ import annotations

from tests.support.batch import BatchProject, failed


def test_a_transformer_annotated_as_bool_gates_what_is_behind_it(project: BatchProject) -> None:
    project.block("load", "@data_loader\ndef load():\n    return [1]\n", type="data_loader")
    project.block("enough", "@transformer\ndef enough(rows, *args) -> bool:\n    return len(rows) > 1000\n")
    project.block("behind", "@transformer\ndef behind(yes):\n    return yes\n")
    project.block("after", "@transformer\ndef after(value):\n    return value\n")
    project.run().expect(0, "completed: 2 completed, 2 skipped")
    assert project.statuses() == {"load": "completed", "enough": "completed", "behind": "skipped", "after": "skipped"}


def test_a_bool_without_the_annotation_is_a_value_like_any_other(project: BatchProject) -> None:
    project.block("load", "@data_loader\ndef load():\n    return [1]\n", type="data_loader")
    project.block("flag", "@transformer\ndef flag(rows):\n    return False\n")
    project.block("behind", "@transformer\ndef behind(value):\n    return [value]\n")
    project.run().expect(0)
    assert project.output("behind") == [False]


def test_conditionals_gate_the_blocks_that_they_name(project: BatchProject) -> None:
    project.block("load", "@data_loader\ndef load():\n    return 3\n", type="data_loader")
    project.block("gated", "@transformer\ndef gated(n):\n    return n\n", upstream=["load"])
    project.block("behind", "@transformer\ndef behind(n):\n    return n\n", upstream=["gated"])
    project.block("free", "@transformer\ndef free(n):\n    return n\n", upstream=["load"])
    ask = "@condition\ndef ask(n, *args, **kwargs):\n    open('log.txt', 'a').write(f'{n}\\n')\n    return n > {}\n"
    project.block("more_than_two", ask.replace("{}", "2"), type="conditional", upstream=["gated"])
    project.run().expect(0)
    assert project.statuses()["behind"] == "completed"
    project.block("more_than_five", ask.replace("{}", "5"), type="conditional", upstream=["gated"])
    project.run().expect(0)
    assert project.statuses() == {"load": "completed", "gated": "skipped", "behind": "skipped", "free": "completed"}
    assert project.lines() == ["3", "3", "3"]


def test_a_condition_that_raises_counts_as_no_and_is_a_warning(project: BatchProject) -> None:
    project.block("load", "@data_loader\ndef load():\n    return 3\n", type="data_loader")
    project.block(
        "ask", "@condition\ndef ask(*args):\n    raise KeyError('x')\n", type="conditional", upstream=["load"]
    )
    project.run().expect(0, "Warning: ask: .*KeyError: 'x'")
    assert project.statuses() == {"load": "skipped"}


def test_a_sensor_is_asked_until_it_says_yes(project: BatchProject) -> None:
    project.block(
        "wait",
        """
        import pathlib
        @sensor
        def there(*args, **kwargs) -> bool:
            with open('log.txt', 'a') as file:
                file.write('asked\\n')
            return len(pathlib.Path('log.txt').read_text().splitlines()) >= 3
        """,
        type="sensor",
        configuration={"interval": 0.05},
    )
    project.block("load", "@data_loader\ndef load(*args):\n    return 1\n", type="data_loader", upstream=["wait"])
    project.run().expect(0)
    assert project.lines() == ["asked"] * 3
    assert project.statuses() == {"wait": "completed", "load": "completed"}


def test_a_sensor_has_no_more_patience_than_it_is_given(project: BatchProject) -> None:
    project.block(
        "wait",
        "@sensor\ndef there():\n    return False\n",
        type="sensor",
        configuration={"interval": 0.05, "timeout": 0.2},
    )
    project.block("load", "@data_loader\ndef load(*args):\n    return 1\n", type="data_loader", upstream=["wait"])
    failed(project.run(), "wait: .*timed out: the condition was not met within 0.2 s")
    assert project.statuses() == {"wait": "failed", "load": "upstream_failed"}


CALLBACK = """
@callback('success')
def well(value=None, **kwargs):
    open('log.txt', 'a').write(f"well {kwargs['parent_block_uuid']} {value}\\n")

@callback('failure')
def badly(*args, **kwargs):
    open('log.txt', 'a').write(f"badly {kwargs['parent_block_uuid']} {kwargs['__error']}\\n")
"""


def test_callbacks_hear_how_their_block_ended(project: BatchProject) -> None:
    project.block("good", "@data_loader\ndef load():\n    return 7\n", type="data_loader")
    project.block("bad", "@data_loader\ndef load():\n    raise ValueError('no')\n", type="data_loader")
    project.block("heard", CALLBACK, type="callback", upstream=["good", "bad"])
    failed(project.run(), "ValueError: no")
    assert sorted(project.lines()) == ["badly bad ValueError: no", "well good 7"]


def test_a_callback_without_a_block_hears_how_the_pipeline_ended(project: BatchProject) -> None:
    project.block("bad", "@data_loader\ndef load():\n    raise ValueError('no')\n", type="data_loader")
    project.block(
        "notify",
        """
        @callback('failure')
        def notify(*args, **kwargs):
            open('log.txt', 'a').write(f"{kwargs['failed_blocks']} {kwargs['pipeline_uuid']}\\n")

        @callback('success')
        def never(*args, **kwargs):
            open('log.txt', 'a').write('success\\n')
        """,
        type="callback",
    )
    failed(project.run(), "ValueError: no")
    assert project.lines() == ["['bad'] p"]


def test_a_callback_that_fails_is_a_warning(project: BatchProject) -> None:
    project.block("good", "@data_loader\ndef load():\n    return 7\n", type="data_loader")
    project.block(
        "hears", "@callback\ndef hears(*args):\n    raise OSError('no mail')\n", type="callback", upstream=["good"]
    )
    project.run().expect(0, "Warning: .*OSError: no mail")


def test_conditions_are_asked_for_each_child(project: BatchProject) -> None:
    project.block(
        "load", "@data_loader\ndef load():\n    return [1, 2, 3]\n", type="data_loader", configuration={"dynamic": True}
    )
    project.block("child", "@transformer\ndef child(n):\n    return n\n", configuration={"reduce_output": True})
    project.block("odd", "@condition\ndef odd(n):\n    return n % 2 == 1\n", type="conditional", upstream=["child"])
    project.block("show", "@transformer\ndef show(found):\n    return found\n", upstream=["child"])
    project.run().expect(0)
    assert project.output("show") == [1, 3]


def test_a_callback_hears_that_there_were_too_many_children(project: BatchProject) -> None:
    project.keys["dynamic_blocks"] = {"max_child_block_runs": 2}
    load = "@data_loader\ndef load():\n    return [1, 2, 3]\n"
    project.block("items", load, type="data_loader", configuration={"dynamic": True})
    project.block("child", "@transformer\ndef child(item):\n    return item\n")
    code = "@callback('failure')\ndef heard(*args, **kwargs):\n    open('log.txt', 'a').write(str(kwargs['__error']))\n"
    project.block("heard", code, type="callback", upstream=["child"])
    failed(project.run())
    assert project.lines() == ["3 child runs exceed max_child_block_runs (2)"]


def test_a_pipelines_callback_has_its_timeout(project: BatchProject) -> None:
    project.block("a", "@data_loader\ndef load():\n    return 1\n", type="data_loader")
    code = "import time\n@callback\ndef slow(*args, **kwargs):\n    time.sleep(600)\n"
    project.block("slow", code, type="callback", timeout=0.5)
    project.run().expect(0, r"callback failed: .*0\.5 s .callbacks/slow.py:4")
