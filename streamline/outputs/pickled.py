"""Pickles that are signed with the project's key: the last 32 bytes of a file are its HMAC-SHA256."""

from __future__ import annotations

import hmac
import pickle
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

from streamline.outputs.errors import OutputError
from streamline.outputs.storage import Storage

if TYPE_CHECKING:
    import hmac

_MARK_LENGTH = 32
_DEEPEST = 20
_TOO_DEEP = "it is nested too deeply"


class Unpicklable(Exception):
    """A value that pickle refuses. `path` says where in the value, `reason` why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"at {path}: {reason}" if path else reason)
        self.path = path
        self.reason = reason


def write(storage: Storage, name: str, value: Any) -> None:
    """Pickle `value` into a new file.

    Raises:
        Unpicklable: some part of it has no pickle.
        OSError: the file cannot be written.
    """
    with storage.create(name) as file:
        signed = _Signed(file, storage)
        try:
            pickle.dump(value, signed, protocol=5)
        except OSError:
            if signed.failed:
                raise
            raise _explained(value) from None
        except Exception:
            raise _explained(value) from None
        signed.finish()


def read(storage: Storage, name: str, what: str) -> Any:
    """Read what `write` wrote.

    Args:
        what: how errors name the value.

    Raises:
        OutputError: the project did not write it, or it needs a class or module that is not there.
    """
    path = storage.path(name)
    shown = str(path) if path is not None else None
    with storage.view(name) as view:
        body = view if storage.key is None else _verified(view, storage.key, shown)
        try:
            return pickle.loads(body)
        except (ImportError, AttributeError) as error:
            raise OutputError(
                f"{what} cannot be read: {error}",
                where=shown,
                hint="the classes of its objects must be importable in the block that reads it: keep them in a module",
                code="output.class_missing",
            ) from error
        except Exception as error:
            raise OutputError(
                f"{what} cannot be read: {type(error).__name__}: {error}", where=shown, code="output.damaged"
            ) from error
        finally:
            body.release()


def _verified(view: memoryview, key: Callable[[], bytes], shown: str | None) -> memoryview:
    mac = hmac.new(key(), digestmod="sha256")  # first: if there is no key, no slice of the view may be left
    body, mark = view[:-_MARK_LENGTH], bytes(view[-_MARK_LENGTH:])
    mac.update(body)
    if not hmac.compare_digest(mac.digest(), mark):
        body.release()
        raise OutputError(
            "this pickled output is not signed with the project's key: only the project that stored it can read it",
            where=shown,
            hint="run the block again that stored it",
            code="output.wrong_project",
        )
    return body


class _Signed:
    """A file that signs what goes through it."""

    def __init__(self, file: IO[bytes], storage: Storage) -> None:
        self._file = file
        self._mac: hmac.HMAC | None = None
        self.failed = False
        if storage.key is not None:
            self._mac = hmac.new(storage.key(), digestmod="sha256")

    def write(self, data: Any) -> int:
        if self._mac is not None:
            self._mac.update(data)
        try:
            return self._file.write(data)
        except OSError:
            self.failed = True
            raise

    def finish(self) -> None:
        if self._mac is not None:
            self._file.write(self._mac.digest())


def _explained(value: Any) -> Unpicklable:
    """Find the part of `value` that cannot be pickled, and the reason."""
    reason = _refusal(value) or "it cannot be pickled"
    path = ""
    for _ in range(_DEEPEST if reason != _TOO_DEEP else 0):
        for step, part in _parts(value):
            refusal = _refusal(part)
            if refusal is not None:
                path, value, reason = path + step, part, refusal
                break
        else:
            break
    return Unpicklable(path, reason)


def _refusal(value: Any) -> str | None:
    try:
        pickle.dump(value, _Nowhere(), protocol=5)
    except RecursionError:
        return _TOO_DEEP
    except Exception as error:
        return str(error) or type(error).__name__
    return None


class _Nowhere:
    def write(self, data: Any) -> int:
        return len(data)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a value, each with the text of its path."""
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", part) for key, part in list(value.items()))
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{number}]", part) for number, part in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from (("{…}", part) for part in value)
    elif type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "items"):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif hasattr(value, "__dict__") and not isinstance(value, type) and not callable(value):
        yield from ((f".{key}", part) for key, part in list(vars(value).items()))
