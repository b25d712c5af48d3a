"""`max_bad_records`: by stream, and whatever refused the records."""

from __future__ import annotations

import pytest

from tests.conformance.integration.common import INCREMENTAL, rows_tap, upto
from tests.conftest import MakeProject
from tests.support.project import tap, target, transformer

BAD = [{"id": n, "text": f"text {n}" if n % 5 else n} for n in upto(20)]
"""20 rows, four of them bad."""


@pytest.mark.parametrize(("most", "code"), [(3, 1), (4, 0)])
def test_a_streams_own_limit_beats_the_destinations(make_project: MakeProject, most: int, code: int) -> None:
    sink = target(streams={"numbers": {"max_bad_records": most}}, on_bad_record="quarantine", max_bad_records=0)
    project = make_project(rows_tap({"numbers": BAD}), sink)

    project.run().expect(code, *(["max_bad_records"] if code else []))


@pytest.mark.parametrize(("most", "code"), [(9, 1), (10, 0)])
def test_values_that_freeze_refuses_count(make_project: MakeProject, most: int, code: int) -> None:
    source = tap("changes_schema", {"change": "retype"}, streams={"numbers": INCREMENTAL})
    project = make_project(source, target(schema_change="freeze", max_bad_records=most))

    project.run().expect(code, *(["max_bad_records"] if code else []))

    assert set(project.ids()) <= set(upto(10))


@pytest.mark.parametrize(("most", "code"), [(3, 1), (4, 0)])
def test_rows_that_a_transformer_can_not_send_on_count(make_project: MakeProject, most: int, code: int) -> None:
    code_text = (
        "from streamline.decorators import transformer\n\n\n@transformer\n"
        "def change(messages: list[dict], *args, **kwargs):\n"
        "    return [{**m, 'new': [1] if m['id'] in (6, 7, 8, 9) else 1} for m in messages]\n"
    )
    project = make_project(
        rows_tap({"numbers": 10}, {"page": 5}),
        transformer(code_text, entry={"configuration": {"batch_rows": 5}}),
        target(max_bad_records=most),
    )

    project.run().expect(code, *(["max_bad_records"] if code else []))
