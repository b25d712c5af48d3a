"""Values that templates insert into files that are rendered whole: none of them breaks the YAML."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamline.project.ioconfig import load_profile
from streamline.project.render import Renderer
from tests.support.opened_project import MakeProject

NAMES = ("PLAIN", "DOUBLE", "SINGLE", "INSIDE", "FLOW", "BLOCK")
TEXT = """\
default:
  # {{ env_var('V') }}
  PLAIN: {{ env_var('V') }}
  DOUBLE: "{{ env_var('V') }}"
  SINGLE: '{{ env_var("V") }}'
  INSIDE: "postgresql://me:{{ env_var('V') }}@db/shop"
  FLOW: [{a: {{ env_var('V') }} }]
  BLOCK: |-
    {{ env_var('V') }}
  AFTER: 1
"""


def read(project: Any) -> dict[str, Any]:
    return dict(load_profile(project.root / "io_config.yaml", project.renderer))


ODD = [
    'a"b',
    "a'b",
    "a\\b",
    "a\nb: c",
    "  x ",
    "# no",
    "{x",
    "[",
    "- a",
    "a: b",
    "&a",
    "*a",
    "!a",
    "%a",
    "@a",
    "`",
    "|",
]
NUMBERS = ["0123", "1.10", "0x1F", "1_000", "=", "-", "---", "\t", "a #b", "12:30", "{{ x }}", "ü€😀", "\ue000"]


@pytest.mark.parametrize("value", [*ODD, *NUMBERS])
def test_a_value_arrives_as_it_is(new_project: MakeProject, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("V", value)
    found = read(new_project(**{"io_config.yaml": TEXT}))
    found["FLOW"] = found["FLOW"][0]["a"]
    assert found.pop("AFTER") == 1
    inside = found.pop("INSIDE")
    assert inside == f"postgresql://me:{value}@db/shop"
    assert found == dict.fromkeys((name for name in NAMES if name != "INSIDE"), value)


@pytest.mark.parametrize(("value", "typed"), [("5432", 5432), ("true", True), ("1.5", 1.5), ("db-1.example", None)])
def test_an_unquoted_number_is_a_number(
    new_project: MakeProject, monkeypatch: pytest.MonkeyPatch, value: str, typed: object
) -> None:
    monkeypatch.setenv("V", value)
    found = read(new_project(**{"io_config.yaml": TEXT}))
    assert found["PLAIN"] == (value if typed is None else typed)
    assert found["DOUBLE"] == found["SINGLE"] == found["BLOCK"] == value


def test_an_unquoted_service_account_key_is_a_mapping(
    new_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {"type": "service_account", "private_key": "-----BEGIN\nabc\n"}
    monkeypatch.setenv("V", json.dumps(key))
    found = read(new_project(**{"io_config.yaml": TEXT}))
    assert found["PLAIN"] == key
    assert found["SINGLE"] == json.dumps(key)


def test_tojson_still_writes_yaml(new_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V", 'a"b\\')
    project = new_project(**{"io_config.yaml": "default: {A: {{ env_var('V') | tojson }}, B: {{ [1, 2] | tojson }}}\n"})
    assert read(project) == {"A": 'a"b\\', "B": [1, 2]}


def test_what_a_template_writes_itself_is_yaml(new_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V", "it's: a \\ b")
    text = """\
{% macro profile(name) %}
{{ name }}:
  HOST: "{{ name }}.example"
  PASSWORD: "{{ env_var('V') }}"
  ESCAPED: '{{ env_var('V') | replace("'", "''") }}'
{% endmacro %}
{{ profile('default') }}
{{ profile('other') }}
"""
    wanted = {"HOST": "default.example", "PASSWORD": "it's: a \\ b", "ESCAPED": "it's: a \\ b"}
    assert read(new_project(**{"io_config.yaml": text})) == wanted


def test_parts_of_a_variable_arrive_as_they_are(new_project: MakeProject) -> None:
    project = new_project(
        **{"io_config.yaml": "default: {A: \"{{ variables('db').word }}\", B: {{ variables('db').n }}}\n"}
    )
    found = load_profile(project.root / "io_config.yaml", Renderer(project, {"db": {"word": 'a"b', "n": 5}}))
    assert dict(found) == {"A": 'a"b', "B": 5}


def test_a_secret_that_has_quotes_is_masked(new_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V", 'open"sesame')
    project = new_project(**{"io_config.yaml": "default:\n  POSTGRES_PASSWORD: \"{{ env_var('V') }}\"\n"})
    read(project)
    assert "sesame" not in project.secrets.masker.mask('it is open"sesame')


def test_files_with_blocks_keep_values_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V", 'x": "y\\')
    file = tmp_path / "load.yaml"
    file.write_text("{% if true %}\nconfig: {password: \"{{ env_var('V') }}\"}\n{{ env_var('V') }}: 1\n{% endif %}\n")
    assert Renderer(None).load(file).data == {"config": {"password": 'x": "y\\'}, 'x": "y\\': 1}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12))
def test_any_text_in_quotes_comes_back(
    new_project: MakeProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    monkeypatch.setenv("V", value)
    file = tmp_path / "io_config.yaml"
    file.write_text("default: {A: \"{{ env_var('V') }}\", B: ['{{ env_var(\"V\") }}x']}\n")
    found = load_profile(file, Renderer(None))
    if not re.search("\ue000(unset|late)", value):
        assert (found["A"], found["B"]) == (value, [f"{value}x"])
