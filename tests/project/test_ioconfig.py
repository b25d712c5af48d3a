"""Profiles of io_config.yaml."""

from __future__ import annotations

import pytest

from streamline.project.ioconfig import Profile, load_profile
from streamline.project.project import Project
from tests.support.failures import refuses
from tests.support.opened_project import MakeProject

TEXT = """\
version: 0.1.1
default:
  POSTGRES_HOST: {{ env_var('PG_HOST') }}
  POSTGRES_PORT: {{ env_var('PG_PORT', 5432) }}
  POSTGRES_PASSWORD: "{{ secret('pg') }}"
  NESTED: {a: ["{{ env_var('PG_OTHER') }}"]}
{% if env_var('WITH_DEV', '') %}
dev: {POSTGRES_HOST: x}
{% endif %}
"""


@pytest.fixture
def project(new_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("STREAMLINE_SECRET_PG", "pass-word")
    return new_project(**{"io_config.yaml": TEXT})


def profile(project: Project, name: str = "default") -> Profile:
    return load_profile(project.root / "io_config.yaml", project.renderer, name)


def test_values(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PG_HOST", "db.example")
    found = profile(project)
    assert (found["POSTGRES_HOST"], found["POSTGRES_PORT"]) == ("db.example", 5432)
    assert found.get("ABSENT", 1) == 1
    assert project.secrets.masker.mask(found["POSTGRES_PASSWORD"]) == "********"


def test_an_unset_variable_matters_when_its_key_is_read(project: Project) -> None:
    found = profile(project)
    assert found["POSTGRES_PORT"] == 5432
    assert "POSTGRES_HOST" in found
    for key, name, line in (("POSTGRES_HOST", "PG_HOST", 3), ("NESTED", "PG_OTHER", 6)):
        with refuses("environment_variable.not_set", name) as caught:
            found.get(key)
        assert caught.value.where == f"io_config.yaml:{line}"


def test_what_is_not_there(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with refuses("profile.setting_missing", "'POSTGRES_HOSTS'") as caught:
        assert profile(project)["POSTGRES_HOSTS"]
    assert "'POSTGRES_HOST'" in str(caught.value.hint)
    with refuses("profile.not_found", "'dev'"):
        profile(project, "dev")
    monkeypatch.setenv("WITH_DEV", "1")
    assert profile(project, "dev")["POSTGRES_HOST"] == "x"


def test_a_name_without_quotes(new_project: MakeProject) -> None:
    project = new_project(**{"io_config.yaml": "default:\n  A: 1\n  B: {{ env_var(NOPE) }}\n"})
    with refuses("template.invalid_name") as caught:
        profile(project)
    assert caught.value.where == "io_config.yaml:3"
    assert caught.value.hint == "put quotes around NOPE: env_var('NOPE')"
