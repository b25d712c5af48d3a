"""What a part of a run was given, in a form in which it comes back as it went: variables may be any Python values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from streamline.errors import ConfigError, StreamlineError
from streamline.outputs import jsonvalue

_MARK_LENGTH = 32

Key = Callable[[], bytes]


class Given(msgspec.Struct, kw_only=True):
    """Variables and options of a run, or of the part of it that a resumption is.

    Args:
        plain: the runtime's and the trigger's variables in a list, where JSON holds them as they are.
        packed: the same where it does not: packed as an output, behind its mark by the project's key.
        tests: the blocks' tests run.
        boot: names the time since the machine was started.
    """

    plain: msgspec.Raw = msgspec.Raw(b"null")
    packed: bytes = b""
    tests: bool = False
    boot: str = ""

    def variables(self, key: Key) -> tuple[dict[str, Any], dict[str, Any]]:
        """The runtime's variables, and the trigger's.

        Raises:
            StreamlineError: the project did not write them, or they need a class that cannot be imported any more.
        """
        if not self.packed:
            runtime, trigger = jsonvalue.loads(self.plain)
            return runtime, trigger
        import hmac

        from streamline.outputs.store import unpack

        mark, data = self.packed[:_MARK_LENGTH], self.packed[_MARK_LENGTH:]
        if not hmac.compare_digest(hmac.digest(key(), data, "sha256"), mark):
            raise StreamlineError(
                "the variables of the run that is to go on do not bear the project's mark",
                hint="run the pipeline without --resume",
            )
        runtime, trigger = unpack(data).value()
        return runtime, trigger


def note(variables: Mapping[str, Any], trigger_variables: Mapping[str, Any], *, tests: bool, key: Key) -> Given:
    """What is to be kept of what a run was given.

    Args:
        key: gives the project's key; called only for values that have to be pickled.

    Raises:
        ConfigError: a variable that no other process could be given.
    """
    both = [dict(variables), dict(trigger_variables)]
    data = jsonvalue.dumps(both)
    if data is not None and jsonvalue.is_standard(data):
        return Given(plain=msgspec.Raw(data), tests=tests, boot=boot_id())
    import hmac

    from streamline.outputs.store import pack

    for name, value in (*both[0].items(), *both[1].items()):
        _see_that_it_goes(name, value)
    packed = pack(both)
    return Given(packed=hmac.digest(key(), packed, "sha256") + packed, tests=tests, boot=boot_id())


def boot_id() -> str:
    """Names the time since the machine was started; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _see_that_it_goes(name: str, value: Any) -> None:
    import pickle

    try:
        pickle.dumps(value, 5)
    except Exception as error:
        raise ConfigError(
            f"the variable '{name}' cannot be handed to blocks, which run in processes of their own: {error}",
            hint="give plain values: text, numbers, dates, lists, dicts",
        ) from None
