"""Classes of users that read or write messages, and the objects made of them.

A class needs no base class. `init_client()`, `test_connection()` and `destroy()` are called where it has them; the base
classes of Mage call the first two from their constructor, so an object is watched while it is made.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from streamline.errors import PipelineFailed, StreamlineError
from streamline.processes.job import Failure


class UserClass(msgspec.Struct, frozen=True, kw_only=True):
    """How to make an object of a user's class.

    Args:
        block: uuid of its block.
        load: loads the class's file and returns the class. Called in the thread that will use it.
        explain: says what the user's code raised, and where.
        keywords: for the constructor, as far as it takes them.
        attributes: set before the constructor is called.
        defaults: the same, of names that the class does not have.
        bases: modules of base classes, whose methods do nothing.
        where: names the class in messages: its file, and line if it is known.
    """

    block: str
    load: Callable[[], type]
    explain: Callable[[BaseException], Failure]
    keywords: Mapping[str, Any] = {}
    attributes: Mapping[str, Any] = {}
    defaults: Mapping[str, Any] = {}
    bases: frozenset[str] = frozenset()
    where: str | None = None


class UserObject:
    """An object of a user's class. Made and used in one thread.

    Args:
        attributes: set before the constructor is called, beside those of the class.

    Raises:
        StreamlineError: its code raised, or says that the other side does not answer.
    """

    def __init__(self, of: UserClass, attributes: Mapping[str, Any]) -> None:
        self.block = of.block
        self.where = of.where
        self._of = of
        self._class = self.call("while its file was loaded", of.load)
        self.value: Any = self.call("while it was made", self._make, {**of.attributes, **attributes})

    def method(self, name: str) -> Callable[..., Any] | None:
        """Return a method that the user's class, or a base class of the user's, defines; None: it has none."""
        for each in self._class.__mro__:
            if name in vars(each):
                if each is object or each.__module__ in self._of.bases:
                    return None
                found = getattr(self.value, name)
                return found if callable(found) else None
        found = vars(self.value).get(name) if hasattr(self.value, "__dict__") else None
        return found if callable(found) else None

    def call(self, doing: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call the user's code.

        Raises:
            StreamlineError: it raised.
        """
        try:
            return function(*args)
        except StreamlineError:
            raise
        except (Exception, SystemExit) as error:
            raise self.failed(self.explain(error), doing) from None

    def explain(self, error: BaseException) -> Failure:
        """Say what the user's code raised."""
        return self._of.explain(error)

    def failed(self, failure: Failure, doing: str) -> StreamlineError:
        """Return a failure of the user's code as the error that ends the attempt."""
        trace = f"\n{failure.trace}" if failure.trace else ""
        return PipelineFailed(
            f"block {self.block} failed {doing}: {failure.message}{trace}",
            blocks=[self.block],
            where=failure.where or self.where,
            hint=failure.hint,
            code="streaming_class.failed",
        )

    def no_method(self, signatures: str) -> StreamlineError:
        """Return the error for a class that has none of the methods that it needs."""
        return PipelineFailed(
            f"the class of block {self.block} has no method {signatures.partition(',')[0]}",
            blocks=[self.block],
            where=self.where,
            hint=f"define {signatures}",
            code="streaming_class.method_missing",
        )

    def destroy(self) -> None:
        """Disconnect; raises as `call`."""
        destroy = self.method("destroy")
        if destroy is not None:
            self.call("while it was destroyed", destroy)

    def _make(self, attributes: Mapping[str, Any]) -> Any:
        made = self._class.__new__(self._class)
        for name, value in attributes.items():
            setattr(made, name, value)
        for name, value in self._of.defaults.items():
            if not hasattr(made, name):
                setattr(made, name, value)
        once = {
            name: _Once(getattr(made, name))
            for name in ("init_client", "test_connection")
            if callable(getattr(made, name, None))
        }
        vars(made).update(once)
        made.__init__(**_taken(self._class, {**self._of.keywords, **attributes}))
        answers = {name: step() for name, step in once.items()}
        for name in once:
            vars(made).pop(name, None)
        if answers.get("test_connection") is False:
            raise ConnectionError("test_connection() returned False")
        return made


class _Once:
    """A method that is called once, whoever calls it."""

    def __init__(self, method: Callable[[], Any]) -> None:
        self._method: Callable[[], Any] | None = method
        self._answer: Any = None

    def __call__(self) -> Any:
        if self._method is not None:
            method, self._method = self._method, None
            self._answer = method()
        return self._answer


def _taken(kind: type, offered: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments that a constructor takes."""
    if kind.__init__ is object.__init__:  # type: ignore[misc]
        return {}
    try:
        parameters = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    except (TypeError, ValueError):
        return {}
    named = list(parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in named):
        return dict(offered)
    wanted = {each.name for each in named if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    return {name: value for name, value in offered.items() if name in wanted}
