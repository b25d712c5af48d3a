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
UNLIMITED = "unlimited"
MAX_DEAD_LETTERS: int | None = 1_000
Value = TypeVar("Value")

LONGEST = 3_600.0
"""Seconds between two checkpoints at most."""
MOST_INSTANCES = 64


METRICS_HOST = "127.0.0.1"
STALLED_SECONDS = 300.0


class MetricsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where metrics and health are served.

    Args:
        port: 0: any that is free.
        stalled_after: seconds without a proof, while messages are in flight, after which the run is not healthy.
    """

    port: int
    host: str = METRICS_HOST
    stalled_after: float = STALLED_SECONDS


class StreamingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a streaming pipeline runs.

    Args:
        checkpoint_interval: seconds between two proofs of a sink that has to be asked for them.
        on_error: what becomes of a message that cannot be processed or delivered.
        dead_letter: the settings of the topic for dead letters, rendered; None: the state store keeps them.
        max_dead_letters: so many dead letters, while nothing is delivered, end the run; None: any number.
        startup_timeout: seconds that a system may be unreachable at the start.
        retry: None: attempts that fail are followed by others without end.
        instances: processes of the pipeline.
        park: later messages with the key of a dead letter become dead letters, too.
        metrics: None: they are not served.
    """

    delivery: Delivery = "at-least-once"
    checkpoint_interval: float = 1.0
    on_error: OnError = "dead-letter"
    dead_letter: Mapping[str, Any] | None = None
    max_dead_letters: int | None = MAX_DEAD_LETTERS
    startup_timeout: float = 60.0
    retry: RetryConfig | None = None
    instances: int = 1
    park: bool = False
    metrics: MetricsSettings | None = None


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
        max_dead_letters=keys.take("max_dead_letters", _limit, MAX_DEAD_LETTERS),
        startup_timeout=keys.seconds("startup_timeout", 60.0),
        retry=model.retry_config,
        instances=keys.take("instances", _instances, 1),
        park=keys.choice("park", ("key",), "") == "key",
        metrics=keys.take("metrics", _metrics, None),
    )
    if settings.on_error == "stop":
        for key in ("dead_letter", "max_dead_letters", "park"):
            if keys.given(key):
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

    def given(self, key: str) -> bool:
        return self._renderer.part(self._yaml, key) is not None

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


def _limit(value: object) -> int | None:
    number = _number(value)
    if value != UNLIMITED and (number is None or number != int(number) or number < 1):
        raise ValueError(f"must be a whole number above 0, or {UNLIMITED}, not {_shown(value)}")
    return int(number) if number is not None else None


def _metrics(value: object) -> MetricsSettings:
    given = value if isinstance(value, dict) else {"port": value}
    known = MetricsSettings.__struct_fields__
    unknown = next((str(key) for key in given if key not in known), None)
    if unknown is not None:
        raise ValueError(f"has no key {unknown!r}, {suggestion(unknown, known)}")
    port = _number(given.get("port"))
    if port is None or port != int(port) or not 0 <= port <= 65_535:
        raise ValueError(f"must have a port from 0 to 65535, not {_shown(given.get('port'))}")
    host = given.get("host", METRICS_HOST)
    if not isinstance(host, str) or not host:
        raise ValueError(f"must have a host name or address as host, not {_shown(host)}")
    stalled_after = _number(given.get("stalled_after", STALLED_SECONDS))
    if stalled_after is None or not 0 < stalled_after < math.inf:
        raise ValueError(f"must have seconds above 0 as stalled_after, not {_shown(given['stalled_after'])}")
    return MetricsSettings(port=int(port), host=host, stalled_after=stalled_after)


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
