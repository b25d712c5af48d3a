"""Where the document and the product that it describes differ, both readings work.

The rows are those of a comparison of the two; each test says which.
"""

from __future__ import annotations

import pytest

from tests.support.batch import BatchProject, failed


def test_row_1_a_tuple_is_one_argument_where_the_function_asks_for_one(project: BatchProject) -> None:
    project.block("load", "@data_loader\ndef load():\n    return 'a', 'b'\n", type="data_loader")
    project.block("one", "@transformer\ndef one(both, *args):\n    return both\n", upstream=["load"])
    project.block("two", "@transformer\ndef two(a, b, *args):\n    return [b, a]\n", upstream=["load"])
    project.run().expect(0)
    assert project.output("one") == ["a", "b"]
    assert project.output("two") == ["b", "a"]


@pytest.mark.parametrize("items", ["['a', 'b']", "[['a', 'b']]", "[['a', 'b'], [{'x': 1}, {'x': 2}]]"])
def test_row_2_items_are_a_flat_list_or_nested(project: BatchProject, items: str) -> None:
    project.block(
        "load", f"@data_loader\ndef load():\n    return {items}\n", type="data_loader", configuration={"dynamic": True}
    )
    project.block("child", "@transformer\ndef child(item, *args, **kwargs):\n    return item\n")
    project.run().expect(0)
    assert project.children("child") == ["a", "b"]


def test_row_2_rows_of_a_dataframe_are_series(project: BatchProject) -> None:
    load = "import pandas as pd\n@data_loader\ndef load():\n    return pd.DataFrame({'n': [1, 2]})\n"
    project.block("load", load, type="data_loader", configuration={"dynamic": True})
    project.block("child", "@transformer\ndef child(row):\n    return [type(row).__name__, int(row['n'])]\n")
    project.run().expect(0)
    assert project.children("child") == [["Series", 1], ["Series", 2]]


def test_row_3_conditions_are_transformers_with_an_annotation_or_blocks_of_their_own(project: BatchProject) -> None:
    project.block("load", "@data_loader\ndef load():\n    return 1\n", type="data_loader")
    # A flag that is passed on is no condition.
    project.block("flag", "@transformer\ndef flag(n):\n    return False\n", upstream=["load"])
    project.block("sees", "@transformer\ndef sees(value):\n    return [value]\n", upstream=["flag"])
    project.block("gate", "@transformer\ndef gate(n) -> bool:\n    return False\n", upstream=["load"])
    project.block("gated", "@transformer\ndef gated(value):\n    return value\n", upstream=["gate"])
    project.block("other", "@transformer\ndef other(n):\n    return n\n", upstream=["load"])
    project.block(
        "no", "@condition\ndef no(*args, **kwargs) -> bool:\n    return False\n", type="conditional", upstream=["other"]
    )
    project.run().expect(0)
    assert project.output("sees") == [False]
    statuses = project.statuses()
    assert (statuses["gated"], statuses["other"]) == ("skipped", "skipped")


def test_row_4_outputs_are_plain_parquet_at_the_documents_place(project: BatchProject) -> None:
    import pandas as pd

    load = "import pandas as pd\n@data_loader\ndef load():\n    return pd.DataFrame({'n': [1, 2]})\n"
    project.block("load", load, type="data_loader")
    project.run().expect(0)
    assert pd.read_parquet(project.root / ".streamline/data/p/load/output_0.parquet")["n"].tolist() == [1, 2]


def test_row_5_a_pipeline_has_its_requirements_and_the_project_is_the_current_folder(project: BatchProject) -> None:
    project.command("create", "fresh", "--type", "python").expect(0)
    assert (project.root / "pipelines" / "fresh" / "requirements.txt").is_file()


def test_row_6_a_custom_block_may_be_the_first(project: BatchProject) -> None:
    project.block("first", "@custom\ndef first(*args, **kwargs):\n    return 1\n", type="custom", upstream=[])
    project.block("second", "@transformer\ndef second(n):\n    return n + 1\n")
    project.run().expect(0)
    assert project.output("second") == 2


def test_row_7_variables_of_the_run_win_and_the_date_is_always_there(project: BatchProject) -> None:
    project.block(
        "load",
        "@data_loader\ndef load(**kwargs):\n    return [kwargs['env'], kwargs['execution_date'].tzinfo is not None]\n",
        type="data_loader",
    )
    project.run("--runtime-vars", '{"env": "mine"}').expect(0)
    assert project.output("load") == ["mine", True]


def test_row_8_tests_run_when_asked_for_and_whenever_a_block_runs_alone(project: BatchProject) -> None:
    code = "@data_loader\ndef load():\n    return 1\n\n@test\ndef test_output(output, *args):\n    assert output == 2\n"
    project.block("load", code, type="data_loader")
    project.run().expect(0)
    failed(project.run("--test"), "1 of 1 test failed")
    failed(project.run("--block-uuid", "load"), "1 of 1 test failed")


def test_row_9_what_a_file_does_not_import_is_not_there(project: BatchProject) -> None:
    project.block("load", "@data_loader\ndef load():\n    return requests.get('x')\n", type="data_loader")
    failed(project.run(), "NameError: name 'requests' is not defined")


def test_only_the_items_of_a_list_are_not_unpacked(project: BatchProject) -> None:
    # Mage stores a list's elements as outputs of their own: `[{...}]` arrives as the dict.
    project.block("load", "@data_loader\ndef load():\n    return [{'a': 1}]\n", type="data_loader")
    project.block("show", "@transformer\ndef show(found):\n    return type(found).__name__\n")
    project.block("nothing", "@data_loader\ndef nothing():\n    return None\n", type="data_loader")
    project.block("sees", "@transformer\ndef sees(found):\n    return repr(found)\n", upstream=["nothing"])
    project.run().expect(0)
    assert project.output("show") == "list"
    assert project.output("sees") == "None"
