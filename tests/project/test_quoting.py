"""`{{ … }}` where YAML would not have it: quoted before YAML looks, and nothing else touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from streamline.project.quoting import quote_templates
from streamline.project.templates import single_expression, template_end
from streamline.project.yamlfile import load_yaml


def read(text: str) -> Any:
    return load_yaml(Path("f.yaml"), text=text).data


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("port: {{ env_var('PORT') }}", {"port": "{{ env_var('PORT') }}"}),
        ("port: {{ env_var('PORT') }} # the port", {"port": "{{ env_var('PORT') }}"}),
        ("url: {{ a }}/{{ b }}", {"url": "{{ a }}/{{ b }}"}),
        ("url: http://{{ a }}:80/", {"url": "http://{{ a }}:80/"}),
        ("url: x-{{ env_var('X', 'a: b # c') }}", {"url": "x-{{ env_var('X', 'a: b # c') }}"}),
        ("- {{ a }}\n- b: {{ c }}\n  d: {{ e }}", ["{{ a }}", {"b": "{{ c }}", "d": "{{ e }}"}]),
        ("x: {a: {{ b }}, c: [{{ d }}, {{ e }}]}", {"x": {"a": "{{ b }}", "c": ["{{ d }}", "{{ e }}"]}}),
        ("x: {a: pre-{{ b['c'] }}-post}", {"x": {"a": "pre-{{ b['c'] }}-post"}}),
        ("x: {a: {b: 1}}", {"x": {"a": {"b": 1}}}),
        ("x: {a: {b: {c: 1}}}", {"x": {"a": {"b": {"c": 1}}}}),
        ('x: "{{ a }}"\ny: \'{{ "b" }}\'', {"x": "{{ a }}", "y": '{{ "b" }}'}),
        ("x: # {{ no }}\n  {{ a }}", {"x": "{{ a }}"}),
        ("# {{ comment }}\nx: 1", {"x": 1}),
        ("x: |\n  {{ a }}\n  key: {{ b }}\ny: {{ c }}", {"x": "{{ a }}\nkey: {{ b }}\n", "y": "{{ c }}"}),
        ("x: >-\n  {{ a }}\n\n  b\ny: 1", {"x": "{{ a }}\nb", "y": 1}),
        ("- x: |\n    {{ a }}\n  y: {{ b }}", [{"x": "{{ a }}\n", "y": "{{ b }}"}]),
        ("- |\n  {{ a }}\n- {{ b }}", ["{{ a }}\n", "{{ b }}"]),
        ("x: some text\n  {{ goes on }}\ny: 1", {"x": "some text {{ goes on }}", "y": 1}),
        ("x: {{ {'a': {'b': '}}'}} }}", {"x": "{{ {'a': {'b': '}}'}} }}"}),
        ("x: {{ f(\n  'a') }}\ny: 2", {"x": "{{ f( 'a') }}", "y": 2}),
        ("{{ key }}: 1", {"{{ key }}": 1}),
        ("x: !!str {{ a }}", {"x": "{{ a }}"}),
        ("x: &a {{ b }}\ny: *a", {"x": "{{ b }}", "y": "{{ b }}"}),
        ("'q k': {{ a }}", {"q k": "{{ a }}"}),
        ('{"a": {{ b }}, "c": 1}', {"a": "{{ b }}", "c": 1}),
        ("a:\r\n  b: {{ c }}\r\n", {"a": {"b": "{{ c }}"}}),
        ("a: it's\nb: {{ c }}", {"a": "it's", "b": "{{ c }}"}),
        ("a: b:c\nd: {{ e }}", {"a": "b:c", "d": "{{ e }}"}),
        ("a:\n- {{ b }}\nc: {{ d }}", {"a": ["{{ b }}"], "c": "{{ d }}"}),
        ("--- \na: {{ b }}", {"a": "{{ b }}"}),
    ],
)
def test_templates_are_text(text: str, data: object) -> None:
    assert read(text) == data


def test_lines_stay_where_they_are() -> None:
    text = "a: {{ x }}\nb: |\n  {{ y }}\nc: {{ z }}\n"
    assert quote_templates(text).count("\n") == text.count("\n")
    assert load_yaml(Path("f"), text=text).where(("c",)) == "f:4"


expressions = st.text(
    st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"], exclude_characters="{}()[]'\"\\"), max_size=12
).map(lambda body: f"{{{{ {body} }}}}") | st.sampled_from(
    ["{{ env_var('A', 'b: c') }}", "{{ x['#'] }}", '{{ f("}}", {"a": {}}) }}', "{{ 'it\\'s' }}", "{{ a }}-{{ b }}"]
)
plain = st.sampled_from(["one", "two words", "a:b", "1", "x#y"])
leaves = plain | expressions
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c d", "e-f"]), inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


def written(value: Any, indent: int = 0, *, flow: bool = False) -> str:
    """`value` as YAML whose strings are never quoted."""
    if isinstance(value, str):
        return value
    if flow:
        if isinstance(value, list):
            return "[" + ", ".join(written(one, flow=True) for one in value) + "]"
        return "{" + ", ".join(f"{key}: {written(one, flow=True)}" for key, one in value.items()) + "}"
    pad = " " * indent
    lines = []
    items = (
        [("-", one) for one in value] if isinstance(value, list) else [(f"{key}:", one) for key, one in value.items()]
    )
    for head, one in items:
        if isinstance(one, str):
            lines.append(f"{pad}{head} {one}")
        else:
            lines.append(f"{pad}{head}\n{written(one, indent + 2)}")
    return "\n".join(lines)


def as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: as_text(one) for key, one in value.items()}
    if isinstance(value, list):
        return [as_text(one) for one in value]
    return value if "{{" in value else yaml.safe_load(value)


@given(trees)
def test_block_style_reads_back(tree: Any) -> None:
    if isinstance(tree, str):
        tree = [tree]
    assert read(written(tree)) == as_text(tree)


@given(trees)
def test_flow_style_reads_back(tree: Any) -> None:
    assert read(f"x: {written([tree], flow=True)}")["x"] == as_text([tree])


@given(
    st.recursive(
        st.integers() | st.booleans() | st.text(max_size=20),
        lambda x: st.lists(x) | st.dictionaries(st.text(max_size=9), x),
    )
)
def test_what_yaml_reads_is_not_touched(value: Any) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    assert yaml.safe_load(quote_templates(text)) == yaml.safe_load(text)


@given(st.text(alphabet="{}'\"[]:,#-|>&*!? \n\tab", max_size=60))
def test_any_text_comes_to_an_end(text: str) -> None:
    quoted = quote_templates(text)
    assert len(quoted.splitlines()) == len(text.splitlines())


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("{{ a }}", "a"),
        ("  {{- a -}}\n", "a"),
        ("{{ a }} ", "a"),
        ("{{ a }}{{ b }}", None),
        ("x {{ a }}", None),
        ("{{ '}}' }}", "'}}'"),
        ("{{ a", None),
        ("plain", None),
    ],
)
def test_one_expression(text: str, expression: str | None) -> None:
    assert single_expression(text) == expression


def test_unended_templates_end_nowhere() -> None:
    assert template_end("{{ a }", 0) == -1
    assert template_end("{{ 'a }}", 0) == -1


@pytest.mark.parametrize("line", ["k: {{ a", "- {{ (a", "k: {{ 'a"])
def test_many_templates_without_an_end_are_left_as_they_are(line: str) -> None:
    text = f"{line}\n" * 8000 + "z: }}\n"
    assert len(quote_templates(text).splitlines()) == 8001


def test_after_a_template_without_an_end_others_are_still_quoted() -> None:
    assert "b: '{{ variables(''x'') }}'\n" in quote_templates("a: {{ don't\nb: {{ variables('x') }}\n")
