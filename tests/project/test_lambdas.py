"""Bare lambdas in templates."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamline.project.lambdas import quote_lambdas
from streamline.project.render import Renderer


@given(st.text(max_size=80))
def test_texts_without_a_bare_lambda_stay_as_they_are(text: str) -> None:
    assert quote_lambdas(text) == text or "lambda" in text


def test_lambdas_outside_of_templates_stay_as_they_are() -> None:
    text = "select 'parse=lambda x: 1' {{ f('a') }} -- parse=lambda"
    assert quote_lambdas(text) == text
    assert quote_lambdas("{{ f(parse='lambda d: d') }}") == "{{ f(parse='lambda d: d') }}"
    assert quote_lambdas("{{ f(parse=lambda d: d") == "{{ f(parse=lambda d: d"


def test_configuration_takes_bare_lambdas_as_sql_does() -> None:
    renderer = Renderer(None, {"more": 1}, block_output=lambda uuid: {"port": 5432, "host": "h"})
    value = {
        "port": "{{ block_output('c', parse=lambda data, vars: data['port'] + vars['more']) }}",
        "url": "http://{{ block_output('c', parse=lambda data: data['host']) }}/",
    }
    assert renderer.render(value) == {"port": 5433, "url": "http://h/"}
    text = "{% if true %}host: {{ block_output('c', parse=lambda data: data['host']) }}{% endif %}"
    assert renderer.render_text(text) == "host: h"
