"""The variables of a run: in its journal, so that `--resume` gets them back exactly, and `execution_date`."""

from __future__ import annotations

import hmac
import pickle
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec

from streamline.errors import ConfigError, StreamlineError
from streamline.outputs import jsonvalue
from streamline.outputs.storage import Key
from streamline.outputs.store import pack, unpack

_SIGNATURE_LENGTH = 32


class RunVariables(msgspec.Struct, kw_only=True):
    """Variables and options of a run, or of a resumed part of it.

    Args:
        plain: the runtime's and the trigger's variables in a list, if JSON represents them exactly.
        packed: otherwise the same packed as an output, after its signature with the project's key.
        tests: the blocks' tests run.
        boot: identifies the boot of the machine.
    """

    plain: msgspec.Raw = msgspec.Raw(b"null")
    packed: bytes = b""
    tests: bool = False
    boot: str = ""

    def variables(self, key: Key) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the runtime's variables and the trigger's.

        Raises:
            StreamlineError: their signature is not the project's, or a class of theirs can no longer be imported.
        """
        if not self.packed:
            runtime, trigger = jsonvalue.loads(self.plain)
            return runtime, trigger

        signature, data = self.packed[:_SIGNATURE_LENGTH], self.packed[_SIGNATURE_LENGTH:]
        if not hmac.compare_digest(hmac.digest(key(), data, "sha256"), signature):
            raise StreamlineError(
                "the variables of the run to resume are not signed with the project's key",
                hint="run the pipeline without --resume",
                code="run.signature_invalid",
            )
        runtime, trigger = unpack(data).value()
        return runtime, trigger


def note(variables: Mapping[str, Any], trigger_variables: Mapping[str, Any], *, tests: bool, key: Key) -> RunVariables:
    """Return the variables of a run for its journal.

    Args:
        key: returns the project's key; called only for values that must be pickled.

    Raises:
        ConfigError: a variable cannot be sent to another process.
    """
    both = [dict(variables), dict(trigger_variables)]
    data = jsonvalue.dumps(both)
    if data is not None and jsonvalue.is_standard(data):
        return RunVariables(plain=msgspec.Raw(data), tests=tests, boot=boot_id())

    for name, value in (*both[0].items(), *both[1].items()):
        _check_pickle(name, value)
    packed = pack(both)
    return RunVariables(packed=hmac.digest(key(), packed, "sha256") + packed, tests=tests, boot=boot_id())


def boot_id() -> str:
    """Return the id of the machine's boot; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _check_pickle(name: str, value: Any) -> None:
    try:
        pickle.dumps(value, 5)
    except Exception as error:
        raise ConfigError(
            f"the variable '{name}' cannot be sent to a worker process: {error}",
            hint="use plain values: text, numbers, dates, lists, dicts",
            code="block.unpicklable_arguments",
        ) from None


def execution_date(variable: Any, default: datetime) -> datetime:
    """Return the date that blocks get.

    Args:
        variable: the variable `execution_date`, rendered; None if there is none.
        default: when the run started.

    Returns:
        a datetime with a time zone; without one in the variable, it is UTC, as the default is.

    Raises:
        ConfigError: the variable is not a date.
    """
    moment = variable
    if variable is None:
        moment = default
    elif isinstance(variable, str):
        try:
            moment = datetime.fromisoformat(variable.strip())
        except ValueError:
            raise _invalid(variable) from None
    elif isinstance(variable, date) and not isinstance(variable, datetime):
        moment = datetime(variable.year, variable.month, variable.day)
    if not isinstance(moment, datetime):
        raise _invalid(variable)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _invalid(variable: Any) -> ConfigError:
    return ConfigError(
        f"the variable execution_date is not a date: {variable!r}",
        hint="write it like 2026-03-04 or 2026-03-04T12:00",
        code="variable.not_a_date",
    )
