"""What a tap or target is given: its environment, its folder, its private files; and nothing else."""

from __future__ import annotations

from tests.conftest import MakeProject
from tests.support.project import tap, target

ALWAYS = {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "STREAMLINE_RUN_ID"}


def test_children_get_a_few_variables_and_what_their_plugin_names(make_project: MakeProject) -> None:
    project = make_project(
        tap("counts", {"rows": 10, "spy": "spy"}, plugin={"env": {"SHOP_MODE": "fast"}, "pass_env": ["AWS_*"]}),
        target("keyed", {"spy": "spy"}),
    )
    env = {
        "AWS_PROFILE": "reader",
        "OTHER_TOKEN": "0ther-t0ken",
        "STREAMLINE_SECRET_X": "s3cret-x",
        "HTTPS_PROXY": "http://proxy:3128",
        "LC_TIME": "C",
        "TZ": "UTC",
        "VIRTUAL_ENV": "/somewhere",
    }

    project.run(env=env).expect(0)

    (given,) = project.spied()
    (sunk,) = project.spied("target")
    common = ALWAYS | {"HTTPS_PROXY", "LC_TIME"}
    assert set(given["environ"]) == common | {"SHOP_MODE", "AWS_PROFILE"}
    assert set(sunk["environ"]) == common
    assert given["environ"]["STREAMLINE_RUN_ID"] == sunk["environ"]["STREAMLINE_RUN_ID"]
    (asked,) = [r for r in project.spied(discover=True) if r["discover"]]
    assert set(asked["environ"]) == set(given["environ"])


def test_a_project_with_spaces_quotes_and_letters_in_its_path(make_project: MakeProject) -> None:
    outer = make_project()
    project = type(outer)(outer.root / 'it\'s a "shop" – café')
    project.pipeline("p", tap("counts", {"rows": 10, "spy": "spy"}), target())

    project.run().expect(0)

    assert len(project.ids()) == 10
