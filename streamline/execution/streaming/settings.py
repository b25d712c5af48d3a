"""The keys of a streaming pipeline at the top of its metadata.yaml, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args

import msgspec

from streamline.connectors.stream_connector import Delivery
from streamline.project.suggest import suggestion
from streamline.project.yamlfile import PathKey, YamlFile, kind_of

if TYPE_CHECKING:
    from streamline.pipeline.model import PipelineModel, RetryConfig
    from streamline.project.render import Renderer

OnError = Literal["dead-letter", "stop"]
Value = TypeVar("Value")

LONGEST = 3_600.0
"""Seconds between two checkpoints at most."""
MOST_INSTANCES = 64


class StreamingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a streaming pipeline runs.

    Args:
        checkpoint_interval: seconds between two proofs of a sink that has to be asked for them.
        on_error: what becomes of a message that cannot be processed or delivered.
        dead_letter: the settings of the topic for dead letters, rendered; None: the state store keeps them.
        startup_timeout: seconds that a system may be unreachable at the start.
        retry: None: attempts that fail are followed by others without end.
        instances: processes of the pipeline.
        park: later messages with the key of a dead letter become dead letters, too.
    """

    delivery: Delivery = "at-least-once"
    checkpoint_interval: float = 1.0
    on_error: OnError = "dead-letter"
    dead_letter: Mapping[str, Any] | None = None
    startup_timeout: float = 60.0
    retry: RetryConfig | None = None
    instances: int = 1
    park: bool = False


def streaming_settings(model: PipelineModel, renderer: Renderer) -> StreamingSettings:
    """Read the pipeline's keys.

    Raises:
        ConfigError: one of them is wrong; the error names its line.
    """
    keys = _Keys(model.yaml, renderer)
    settings = StreamingSettings(
        delivery=cast("Delivery", keys.choice("delivery", get_args(Delivery), "at-least-once")),
        checkpoint_interval=keys.seconds("checkpoint_interval", 1.0, most=LONGEST),
        on_error=cast("OnError", keys.choice("on_error", get_args(OnError), "dead-letter")),
        dead_letter=keys.take("dead_letter", _mapping, None),
        startup_timeout=keys.seconds("startup_timeout", 60.0),
        retry=model.retry_config,
        instances=keys.take("instances", _instances, 1),
        park=keys.choice("park", ("key",), "") == "key",
    )
    if settings.on_error == "stop":
        for key, given in (("dead_letter", settings.dead_letter is not None), ("park", settings.park)):
            if given:
                raise model.yaml.error(
                    f"{key} has no effect with on_error: stop: there are no dead letters",
                    (key,),
                    hint=f"remove {key}, or write on_error: dead-letter",
                    code="setting.conflict",
                )
    return settings


class _Keys:
    def __init__(self, yaml: YamlFile, renderer: Renderer) -> None:
        self._yaml = yaml
        self._renderer = renderer

    def take(self, key: str, check: Callable[[object], Value], default: Value) -> Value:
        value = self._renderer.part(self._yaml, key)
        if value is None:
            return default
        try:
            return check(value)
        except ValueError as error:
            raise self._yaml.error(f"{key} {error}", (key,), code="setting.invalid") from None

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        value = self._renderer.part(self._yaml, key)
        if value is None:
            return default
        if value in choices:
            return str(value)
        hint = suggestion(str(value), choices)
        raise self._yaml.error(
            f"{key} must be {' or '.join(choices)}, not {value!r}", (key,), hint=hint, code="setting.invalid"
        )

    def seconds(self, key: str, default: float, *, most: float = math.inf) -> float:
        def check(value: object) -> float:
            number = _number(value)
            if number is None or not 0 < number < math.inf or number > most:
                limit = f", at most {most:g}" if most < math.inf else ""
                raise ValueError(f"must be a number of seconds above 0{limit}, not {_shown(value)}")
            return number

        return self.take(key, check, default)


def _instances(value: object) -> int:
    number = _number(value)
    if number is None or number != int(number) or not 1 <= number <= MOST_INSTANCES:
        raise ValueError(f"must be a whole number from 1 to {MOST_INSTANCES}, not {_shown(value)}")
    return int(number)


def _mapping(value: object) -> Mapping[str, Any]:
    topic = value.get("topic") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(topic, str) or not topic:
        raise ValueError(f"must be a mapping with a topic, not {kind_of(value)}")
    return value


def _number(value: object) -> float | None:
    if isinstance(value, str):  # a template
        try:
            return float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _shown(value: object) -> str:
    return f"{value!r}" if isinstance(value, str) else kind_of(value)


def key_path(where: Sequence[Any]) -> tuple[PathKey, ...]:
    """Return the path of a key that is given as several arguments or as one sequence."""
    first = where[0] if len(where) == 1 else None
    return tuple(first) if isinstance(first, list | tuple) else tuple(where)
