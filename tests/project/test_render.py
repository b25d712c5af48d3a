"""Templates in configuration, as a user writes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamline.errors import ConfigError
from streamline.project.render import Renderer, check_deferred
from tests.support.failures import refuses
from tests.support.opened_project import MakeProject

OUTPUT = {"database": "d", "port": 5432, "hosts": ["a", "b"]}


@pytest.fixture
def renderer(new_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> Renderer:
    monkeypatch.setenv("SHOP_HOST", "db.example")
    monkeypatch.setenv("STREAMLINE_SECRET_SHOP", 'p"w: {{ x }}\n#')
    monkeypatch.delenv("UNSET_HERE", raising=False)
    variables = {
        "port": 5432,
        "tags": ["a", "b"],
        "host": "{{ env_var('SHOP_HOST') }}",
        "loop": "{{ variables('loop') }}",
    }
    return Renderer(
        new_project(), variables, None, {"creds": OUTPUT}.__getitem__, runtime={"given": "{{ secret('shop') }}"}
    )


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("plain", "plain"),
        ("{{ env_var('SHOP_HOST') }}", "db.example"),
        ('{{ env_var("UNSET_HERE", "x") }}', "x"),
        ("{{ env_var('UNSET_HERE', 5432) }}", 5432),
        ("{{ env_var('UNSET_HERE', None) }}", None),
        ("{{ env_var('UNSET_HERE', true) }}", True),
        ("{{ env_var('UNSET_HERE') if false else 1 }}", 1),
        ("{{ variables('port') }}", 5432),
        ("{{ variables('port') + 1 }}", 5433),
        ("{{ variables('tags') }}", ["a", "b"]),
        ("{{ variables('host') }}", "db.example"),
        ("{{ variables('absent', 7) }}", 7),
        ("port {{ variables('port') }}!", "port 5432!"),
        ("{{ variables('port') }}{{ variables('port') }}", "54325432"),
        ("{{ secret('shop') }}", 'p"w: {{ x }}\n#'),
        ("{{ mage_secret_var('shop') }}", 'p"w: {{ x }}\n#'),
        ("{{ block_output('creds')['port'] }}", 5432),
        ("{{ block_output('creds', parse='lambda data: data[\"hosts\"]') }}", ["a", "b"]),
        ("{{ block_output('creds', parse='lambda x, vars: [x[\"port\"], vars[\"port\"]]') }}\n", [5432, 5432]),
        ("{{ env_var('SHOP_HOST') | upper }}", "DB.EXAMPLE"),
        ("{{ env_var('UNSET_HERE', '5') | int }}", 5),
        ("a {# comment #}b", "a b"),
        ("{% if true %}yes{% endif %}", "yes"),
        ({"a": ["{{ variables('port') }}", 1, None]}, {"a": [5432, 1, None]}),
        ({"{{ variables('host') }}": 1}, {"db.example": 1}),
    ],
)
def test_values(renderer: Renderer, template: Any, value: object) -> None:
    assert renderer.render(template) == value


def test_run_time_variables_are_values_and_no_templates(renderer: Renderer) -> None:
    assert renderer.render("{{ variables('given') }}") == "{{ secret('shop') }}"


@pytest.mark.parametrize(
    ("template", "code", "name", "hint"),
    [
        ("{{ env_var('UNSET_HERE') }}", "environment_variable.not_set", "UNSET_HERE", "env_var('UNSET_HERE', '…')"),
        ("x {{ env_var('UNSET_HERE') }}", "environment_variable.not_set", "UNSET_HERE", "default"),
        ("{{ variables('prt') }}", "variable.not_found", "'prt'", "'port'"),
        ("{{ variables('loop') }}", "variable.cycle", "loop → loop", ""),
        ("{{ secret('shp') }}", "secret.not_found", "'shp'", "'shop'"),
        ("{{ secret('other') }}", "secret.not_found", "'other'", "STREAMLINE_SECRET_OTHER"),
        ("{{ nothing }}", "template.failed", "'nothing'", "env_var"),
        ("{{ env_var(NOPE) }}", "template.invalid_name", "env_var(NOPE)", "env_var('NOPE')"),
        ("x {{ variables(nope) }}", "template.invalid_name", "variables(nope)", "variables('nope')"),
        ("{{ secret(nope) }}", "template.invalid_name", "secret(nope)", "secret('nope')"),
        ("{{ block_output(creds) }}", "template.invalid_name", "(creds)", "block_output('creds')"),
        ("{{ env_var(5) }}", "template.invalid_name", "env_var() takes a name in quotes, not int", ""),
        ("{{ a b }}", "template.syntax", "", ""),
        ("{{ 1 / 0 }}", "template.failed", "ZeroDivisionError", "1 / 0"),
        ("{{ ''.__class__.__mro__ }}", "template.failed", "'__class__'", ""),
        ("x {{ variables('tags').append(1) }}", "template.failed", "'append'", ""),
        ("{{ block_output('creds', parse='data') }}", "template.invalid_parse", "parse=", "lambda"),
        ("{{ block_output('creds', parse='lambda: 1') }}", "template.invalid_parse", "parse=", ""),
        ("{{ block_output('creds', parse='lambda x: x[\"no\"]') }}", "template.failed", "KeyError", ""),
    ],
)
def test_errors_say_where_what_and_what_to_do(
    renderer: Renderer, template: str, code: str, name: str, hint: str
) -> None:
    with refuses(code, name) as caught:
        renderer.render({"config": {"host": template}}, lambda path: f"f.yaml:{len(path)}")
    assert caught.value.where == "f.yaml:2"
    assert caught.value.message.startswith("config.host: ")
    assert hint in (caught.value.hint or "")
    assert 'p"w' not in str(caught.value)


def test_an_error_does_not_show_a_secret(renderer: Renderer) -> None:
    with pytest.raises(ConfigError) as caught:
        renderer.render("{{ {}[secret('shop')] + 1 }}")
    assert 'p"w' not in str(caught.value)


def test_without_a_block_that_ran_there_is_no_output(new_project: MakeProject) -> None:
    with refuses("template.no_block_output"):
        Renderer(new_project()).render("{{ block_output('a') }}")


def test_only_what_is_asked_for_is_rendered(new_project: MakeProject) -> None:
    project = new_project(**{"b.yaml": "source: x\nconfig: {a: {{ env_var('UNSET_HERE') }}}\nstreams: {t: {}}\n"})
    renderer = Renderer(project)
    file = renderer.load(project.root / "b.yaml")
    assert renderer.part(file, "source") == "x"
    assert renderer.part(file, "streams") == {"t": {}}
    assert renderer.part(file, "absent", default=3) == 3
    with pytest.raises(ConfigError) as caught:
        renderer.part(file, "config")
    assert caught.value.where == "b.yaml:2"
    assert caught.value.message.startswith("config.a: ")


def test_files_with_statements_are_rendered_whole(new_project: MakeProject) -> None:
    text = "streams:\n{% for n in variables('names') %}  {{ n }}: {}\n{% endfor %}\nx: {{ env_var('UNSET_HERE', 3) }}\n"
    project = new_project(**{"b.yaml": text})
    renderer = Renderer(project, {"names": ["a", "b"]})
    file = renderer.load(project.root / "b.yaml")
    assert renderer.part(file, "streams") == {"a": {}, "b": {}}
    assert renderer.part(file, "x") == 3


def test_a_rendered_file_is_not_rendered_again(new_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLINE_SECRET_ODD", "{{ env_var('HOME') }}")
    project = new_project(**{"b.yaml": "{% if true %}\nx: \"{{ secret('odd') }}\"\n{% endif %}\n"})
    renderer = Renderer(project)
    assert renderer.part(renderer.load(project.root / "b.yaml"), "x") == "{{ env_var('HOME') }}"


def test_syntax_errors_in_a_whole_file_name_the_line(new_project: MakeProject) -> None:
    project = new_project(**{"b.yaml": "a: 1\n{% if %}\n"})
    with pytest.raises(ConfigError) as caught:
        Renderer(project).load(project.root / "b.yaml")
    assert caught.value.where == "b.yaml:2"


def test_unset_variables_of_a_whole_file_can_wait_until_they_are_read(renderer: Renderer) -> None:
    text = renderer.render_text("a: x{{ env_var('UNSET_HERE') }}y\nb: {{ env_var('SHOP_HOST') }}\n", defer_unset=True)
    lines = dict(line.split(": ") for line in text.splitlines())
    assert check_deferred(lines["b"]) == "db.example"
    with refuses("environment_variable.not_set", "UNSET_HERE"):
        check_deferred(lines["a"], "io_config.yaml")


@given(value=st.text(min_size=1).filter(lambda text: "\0" not in text and text.isprintable()))
def test_a_secret_arrives_as_it_is(value: str) -> None:
    renderer = Renderer(None, runtime={"s": value})
    assert renderer.render("{{ variables('s') }}") == value
    assert renderer.render("<{{ variables('s') }}>") == f"<{value}>"
    assert renderer.render({"a": ["{{ variables('s') ~ '' }}"]}) == {"a": [value]}


@given(
    st.recursive(
        st.integers() | st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(alphabet="ab {}%#"),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(alphabet="ab"), x, max_size=3),
    )
)
def test_one_expression_keeps_any_type(value: Any) -> None:
    rendered = Renderer(None, runtime={"v": value}).render("{{ variables('v') }}")
    assert rendered == value
    assert type(rendered) is type(value)


def test_plain_calls_do_not_need_jinja(tmp_path: Path) -> None:
    (tmp_path / "streamline.yaml").write_text("state: \"{{ env_var('S', 'sqlite:///x.db') }}\"\n")
    code = (
        "import sys\nfrom streamline.project.project import Project\n"
        "assert Project.find().state_url == 'sqlite:///x.db'\n"
        "heavy = {'jinja2', 'uv', 'importlib.metadata', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={"PYTHONPATH": ":".join(sys.path)})
