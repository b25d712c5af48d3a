"""The files that new Python blocks start with. Each runs unchanged."""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence

from streamline.pipeline.kinds import Template
from streamline.pipeline.model import FOLDERS

_TRANSFORMER_IN_PIPE = '''\
import pandas as pd

from streamline.decorators import transformer


@transformer
def transform(rows: pd.DataFrame, *args, stream: str, **kwargs) -> pd.DataFrame:
    """Called with one batch of one stream at a time; what is not returned is dropped."""
    return rows
'''
_TRANSFORMER_OF_MESSAGES = '''\
from streamline.decorators import transformer


@transformer
def transform(messages: list[dict], *args, **kwargs) -> list[dict]:
    """Called with some messages at a time; what is not returned is dropped."""
    return messages
'''
STREAMING_SOURCE = '''\
import time

from streamline.decorators import streaming_source


@streaming_source
class Source:
    """Reads messages. `self.position` is the last position that arrived everywhere; None at the first start."""

    def init_client(self) -> None:
        """Connect."""

    def batch_read(self, handler) -> None:
        """Give messages to the handler until there are no more; returning ends the pipeline."""
        number = self.position or 0
        while True:
            number += 1
            handler([{"id": number}], position=number)
            time.sleep(1)

    def destroy(self) -> None:
        """Disconnect."""
'''
STREAMING_SINK = '''\
from streamline.decorators import streaming_sink


@streaming_sink
class Sink:
    """Writes messages."""

    def init_client(self) -> None:
        """Connect."""

    def batch_write(self, messages: list[dict]) -> None:
        """Write messages; they count as delivered when this returns."""
        for message in messages:
            print(message)

    def destroy(self) -> None:
        """Disconnect."""
'''
_TEST = """

@test
def test_output(output, *args) -> None:
    assert output is not None, "The output is undefined"
"""
_LOADER = """\
import pandas as pd

from streamline.decorators import data_loader, test


@data_loader
def load_data({parameters}*args, **kwargs):
    return pd.DataFrame({{"id": [1, 2, 3]}})
"""
_TRANSFORMER = """\
from streamline.decorators import test, transformer


@transformer
def transform({parameters}*args, **kwargs):
    return {given}
"""
_EXPORTER = """\
from streamline.decorators import data_exporter


@data_exporter
def export_data({parameters}*args, **kwargs) -> None:
    print({given})
"""
_SENSOR = '''\
from streamline.decorators import sensor


@sensor
def check_condition(*args, **kwargs) -> bool:
    """Asked again and again until it says True."""
    return True
'''
_CUSTOM = """\
from streamline.decorators import custom, test


@custom
def run({parameters}*args, **kwargs):
    return {given}
"""
_CALLBACK = """\
from streamline.decorators import callback


@callback("success")
def on_success(parent_output=None, *args, **kwargs) -> None:
    print(kwargs["parent_block_uuid"], "succeeded")


@callback("failure")
def on_failure(parent_output=None, *args, **kwargs) -> None:
    print(kwargs["parent_block_uuid"], "failed:", kwargs["__error"])
"""
_PIPELINE_CALLBACK = '''\
from streamline.decorators import callback


@callback("success")
def on_success(*args, **kwargs) -> None:
    """Called once, when the whole pipeline has ended."""
    print(kwargs["pipeline_uuid"], "succeeded")


@callback("failure")
def on_failure(*args, **kwargs) -> None:
    print(kwargs["pipeline_uuid"], "failed:", ", ".join(kwargs["failed_blocks"]))
'''
_CONDITION = '''\
from streamline.decorators import condition


@condition
def evaluate_condition(*args, **kwargs) -> bool:
    """Whether the block that it gates runs; it is given what that block is given."""
    return True
'''


def template(block_type: str, pipeline_type: str) -> Template | None:
    """Return the template of a Python block; None if there is none for its type."""
    if block_type == "transformer" and pipeline_type in ("integration", "streaming"):
        text = _TRANSFORMER_IN_PIPE if pipeline_type == "integration" else _TRANSFORMER_OF_MESSAGES
        return lambda _: text
    if pipeline_type == "streaming" and block_type in ("data_loader", "data_exporter"):
        end = STREAMING_SOURCE if block_type == "data_loader" else STREAMING_SINK
        return lambda _: end
    return _TEMPLATES.get(block_type)


def _python(text: str, nothing: str, *, tested: bool = False) -> Template:
    """Return a template whose function has the upstream outputs as parameters; without any it returns `nothing`."""

    def make(upstream: Sequence[str]) -> str:
        names = parameters(upstream)
        given = names[0] if len(names) == 1 else f"{{{', '.join(f'{name!r}: {name}' for name in names)}}}"
        made = text.format(parameters="".join(f"{name}, " for name in names), given=given if names else nothing)
        return made.replace("'", '"') + (_TEST if tested else "")

    return make


def parameters(upstream: Sequence[str]) -> list[str]:
    """Return names for the outputs of these blocks: their uuids if all can be names, else `df_1`, …."""
    if all(name.isidentifier() and not keyword.iskeyword(name) and name not in _TAKEN for name in upstream):
        return list(upstream)
    return [f"df_{number}" for number, _ in enumerate(upstream, 1)] if len(upstream) > 1 else ["data"]


_TAKEN = {"args", "kwargs", "pd", "test", "print", *FOLDERS}


_TEMPLATES: Mapping[str, Template] = {
    "data_loader": _python(_LOADER, "", tested=True),
    "transformer": _python(_TRANSFORMER, "{}", tested=True),
    "data_exporter": _python(_EXPORTER, '"nothing to export yet"'),
    "sensor": lambda _: _SENSOR,
    "custom": _python(_CUSTOM, "{}", tested=True),
    "callback": lambda upstream: _CALLBACK if upstream else _PIPELINE_CALLBACK,
    "conditional": lambda _: _CONDITION,
}
