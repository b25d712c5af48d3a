"""The modules of `mage_ai`, made when they are imported; their names are looked up when they are used."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec as find_own
from types import ModuleType
from typing import Any

from streamline.compat.names import IO, REPLACEMENTS, SERVED
from streamline.project.suggest import suggestion

ROOT = "mage_ai"


class AliasModule(ModuleType):
    """One module of the alias. It has a `__path__` so that Python asks us about names it does not have, and we can say
    in the error of `from … import …` what is there instead.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        home = _home(self.__name__, name)
        if home is None:
            raise AttributeError(not_served(f"{self.__name__}.{name}"))
        value = getattr(import_module(home[0]), home[1])
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *names_in(self.__name__)})


class AliasLoader(Loader):
    """Makes an alias module; there is nothing to execute in it."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return AliasModule(spec.name, f"`{spec.name}`, as far as Streamline serves it.")

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: names are looked up when they are used."""


def find_spec(fullname: str) -> ModuleSpec | None:
    """Return the spec of a module of the alias; None where a real `mage_ai` is imported, which speaks for itself.

    Raises:
        ModuleNotFoundError: the alias does not have it; the message says what it has.
    """
    root = sys.modules.get(ROOT)
    if fullname != ROOT and root is not None and not _may_extend(root):
        return None
    if not _is_module(fullname):
        # Bearing another name than the module's, it is not swallowed by `from parent import name`.
        raise ModuleNotFoundError(not_served(fullname), name=ROOT)
    return ModuleSpec(fullname, AliasLoader(), origin="streamline", is_package=True)


def names_in(module: str) -> list[str]:
    """Return the names that a module of the alias serves, submodules included, sorted."""
    below = {name.removeprefix(f"{module}.").partition(".")[0] for name in modules() if name.startswith(f"{module}.")}
    names = {*SERVED.get(module, {}), *below}
    own = _own_io(module)
    if own is not None:
        module_behind = import_module(own)
        names |= {name for name in vars(module_behind) if _is_public(module_behind, name)}
    return sorted(names)


def modules() -> list[str]:
    """Return every module that the alias serves, sorted."""
    names = {*SERVED, *(full for name in IO if _own_io(full := f"{ROOT}.io.{name}") is not None)}
    for name in list(names):
        while "." in name:
            name = name.rpartition(".")[0]
            names.add(name)
    return sorted(names)


def not_served(fullname: str) -> str:
    """Return why a name is not served, and what to do."""
    hint = next((text for prefix, text in REPLACEMENTS.items() if (fullname + ".").startswith(prefix + ".")), None)
    if hint is None:
        parent = fullname.rpartition(".")[0]
        while parent != ROOT and not _is_module(parent):
            parent = parent.rpartition(".")[0]
        served = names_in(parent)
        hint = f"in {parent}, " + suggestion(fullname.removeprefix(f"{parent}."), served, what="it serves")
    return f"{fullname} is not served by Streamline's mage_ai alias: {hint}; installing mage-ai beside it gives all"


def _home(module: str, name: str) -> tuple[str, str] | None:
    """Return where a name comes from: a module of Streamline's, and the name in it."""
    target = SERVED.get(module, {}).get(name)
    if target is not None:
        home, _, attribute = target.partition(":")
        return home, attribute
    own = _own_io(module)
    return (own, name) if own is not None and _is_public(import_module(own), name) else None


def _is_module(fullname: str) -> bool:
    if _own_io(fullname) is not None:
        return True
    return any(module == fullname or module.startswith(f"{fullname}.") for module in SERVED)


def _own_io(fullname: str) -> str | None:
    """Return the module of streamline/io behind a module of `mage_ai.io`."""
    name = fullname.removeprefix(f"{ROOT}.io.")
    own = f"streamline.io.{name}"
    return own if name in IO and find_own(own) is not None else None


def _is_public(module: ModuleType, name: str) -> bool:
    """Return whether it is one of the module's classes, imported ones included; helpers are its own business."""
    if name not in getattr(module, "__all__", (name,)) or not isinstance(getattr(module, name, None), type):
        return False
    return str(getattr(module, name).__module__).startswith("streamline.")


def _may_extend(root: ModuleType) -> bool:
    """Return whether what is imported as `mage_ai` is ours, or merely a folder of that name, which is no package."""
    return isinstance(root, AliasModule) or getattr(root, "__file__", None) is None
