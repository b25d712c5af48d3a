"""Streamline: data pipelines from Singer taps and targets, blocks and streams, with proven delivery.

What scripts use is here by name, and imported when it is used: `Pipeline`, `PipelineType`, `get_repo_path`, `run`,
`trigger_pipeline`, `check_status`, and the errors. Importing this package also makes `mage_ai` importable where the
real one is not installed, so that block files written for it run as they are (streamline/compat/).
"""

import sys

from streamline.version import __version__ as __version__

TYPE_CHECKING = False  # typing's own takes longer to import than all else here
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from streamline.api import Pipeline, PipelineType, get_repo_path, run
    from streamline.errors import ConfigError, LeaseHeld, PipelineFailed, StreamlineError
    from streamline.triggers import check_status, trigger_pipeline

__all__ = [
    "ConfigError",
    "LeaseHeld",
    "Pipeline",
    "PipelineFailed",
    "PipelineType",
    "StreamlineError",
    "check_status",
    "get_repo_path",
    "run",
    "trigger_pipeline",
]

_HOMES = {
    "ConfigError": "streamline.errors",
    "LeaseHeld": "streamline.errors",
    "Pipeline": "streamline.api",
    "PipelineFailed": "streamline.errors",
    "PipelineType": "streamline.api",
    "StreamlineError": "streamline.errors",
    "check_status": "streamline.triggers",
    "get_repo_path": "streamline.api",
    "run": "streamline.api",
    "trigger_pipeline": "streamline.triggers",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'streamline' has no attribute '{name}'")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _MageAlias:
    """Finds `mage_ai` where nothing else does: it stands last in line, so that a real one always wins."""

    @staticmethod
    def find_spec(
        fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if fullname != "mage_ai" and not fullname.startswith("mage_ai."):
            return None
        from streamline.compat.alias import find_spec

        return find_spec(fullname)


if not any(getattr(finder, "__name__", "") == "_MageAlias" for finder in sys.meta_path):
    sys.meta_path.append(_MageAlias)
