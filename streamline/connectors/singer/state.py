"""Singer STATE: splits it into a part for each stream, and joins parts again.

Taps decide what a state is. Known shapes: `{"bookmarks": {stream: {…}}, "currently_syncing": …}` with or without other
top-level keys, flat `{"stream": "2017-01-01"}` of old taps, anything else. Values are never re-encoded: a tap gets back
what it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Set

from streamline.flow.codecs import jsontext
from streamline.flow.codecs.jsontext import JSONTextError
from streamline.flow.items import FORGOTTEN, REST

START = b'{"bookmarks":{}}'
"""What taps and targets start from when nothing is saved. Not `{}`, which some targets echo as a state of their own."""

SERIAL_MEMBER = "streamline_place"
"""Member of a state that only targets see; see `numbered`."""

# Keys that taps are known to write beside `bookmarks`: a rest of only these is not a flat state.
_KNOWN_REST = {"currently_syncing", "activate_versions", "versions"}


class StateParts(Mapping[str, bytes]):
    """The parts of a STATE, split when one of them is first read: most STATEs are only forwarded.

    Args:
        text: the STATE's value as the tap wrote it.
        forgotten: more keys, which the tap no longer has.
    """

    __slots__ = ("_forgotten", "_parts", "text")

    def __init__(self, text: bytes, forgotten: Collection[str] = ()) -> None:
        self.text = text
        self._forgotten = forgotten and frozenset(forgotten)
        self._parts: dict[str, bytes] | None = None

    @property
    def nbytes(self) -> int:
        """Size of the text."""
        return len(self.text)

    def __getitem__(self, key: str) -> bytes:
        return self._split()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._split())

    def __len__(self) -> int:
        return len(self._split())

    def __repr__(self) -> str:
        return f"StateParts({self.text!r})"

    def _split(self) -> dict[str, bytes]:
        if self._parts is None:
            self._parts = {**split_state(self.text), **dict.fromkeys(self._forgotten, FORGOTTEN)}
        return self._parts


def state_of(parts: Mapping[str, bytes]) -> bytes:
    """Return the STATE value that has these parts: as its tap wrote it, unless something has changed them."""
    return parts.text if isinstance(parts, StateParts) else join_state(parts)


def split_state(value: bytes) -> dict[str, bytes]:
    """Return the parts of a state as the tap wrote them: each stream's bookmark, and the rest under `*`.

    A state whose `bookmarks` is missing, or no object, has the one part `*`. So has one with a rest and no bookmark, to
    keep its shape.

    Raises:
        JSONTextError: it is not valid JSON.
    """
    try:
        rest = jsontext.members(value)
        bookmarks = jsontext.members(rest["bookmarks"])
    except (jsontext.NotAnObjectError, KeyError):
        return {REST: value.strip()}
    if REST in bookmarks:
        return {REST: value.strip()}
    if not bookmarks:
        return {} if len(rest) == 1 else {REST: value.strip()}
    del rest["bookmarks"]
    if rest:
        bookmarks[REST] = jsontext.join_members(rest)
    return bookmarks


def join_state(rows: Mapping[str, bytes]) -> bytes:
    """Return the state of these parts; the inverse of `split_state`. Without parts it is `{"bookmarks":{}}`.

    Parts that are `FORGOTTEN` are left out.

    Raises:
        JSONTextError: a row's text is not valid JSON.
    """
    bookmarks = {stream: text for stream, text in rows.items() if stream != REST and text != FORGOTTEN}
    rest: dict[str, bytes] = {}
    if rows.get(REST):
        try:
            rest = jsontext.members(rows[REST])
        except jsontext.NotAnObjectError:
            if not bookmarks:
                return rows[REST]
        if not bookmarks and rest and not rest.keys() <= _KNOWN_REST:
            return rows[REST]
    rest.pop("bookmarks", None)
    return jsontext.join_members({"bookmarks": jsontext.join_members(bookmarks), **rest})


def keys_of(value: bytes) -> Set[str] | None:
    """Return the keys of a state's parts; None: it is not valid JSON."""
    try:
        return split_state(value).keys()
    except JSONTextError:
        return None


def repeats_keys(prefix: bytes) -> bool:
    """Return whether STATE lines that begin with `prefix` share a bookmark: none drops what it alone had shown."""
    head, separator, bookmarks = prefix.partition(b'"bookmarks"')
    return bookmarks.count(b":") > 1 if separator else head.count(b":") > 2


def has_bookmarks(value: bytes) -> bool:
    """Return whether a state keeps its streams apart under `bookmarks`; only then can its tap be sharded."""
    try:
        jsontext.members(jsontext.members(value)["bookmarks"])
    except (JSONTextError, KeyError):
        return False
    return True


def rows_have_bookmarks(rows: Mapping[str, bytes]) -> bool:
    """Return whether the state of these parts `has_bookmarks`; true if there are none."""
    return has_bookmarks(join_state(rows))


def currently_syncing(rest: bytes) -> str | None:
    """Return the stream that the part `*` names as `currently_syncing`."""
    try:
        name = jsontext.decode(jsontext.members(rest)["currently_syncing"])
    except (JSONTextError, KeyError):
        return None
    return name if isinstance(name, str) else None


def without_currently_syncing(rest: bytes) -> bytes | None:
    """Return the part `*` without `currently_syncing`; None if nothing else is in it.

    `currently_syncing` names the stream that a tap process was reading, which means nothing to several processes.
    """
    try:
        kept = jsontext.members(rest)
    except jsontext.NotAnObjectError:
        return rest
    if kept.pop("currently_syncing", None) is None:
        return rest
    return jsontext.join_members(kept) if kept else None


def numbered(value: bytes, serial: int) -> bytes:
    """Return a state with bookmarks as a target is sent it, when its echo must be told from all others."""
    return jsontext.join_members({**jsontext.members(value), SERIAL_MEMBER: b"%d" % serial})


def owned_parts(parts: Mapping[str, bytes], owns: Callable[[str], bool], *, shared: bool) -> dict[str, bytes]:
    """Return the parts of a STATE that one tap process may save.

    Args:
        owns: whether a stream's bookmark is this process's.
        shared: other processes read streams of the same tap.
    """
    owned = {key: text for key, text in parts.items() if key == REST or owns(key)}
    if shared and owned.get(REST):
        rest = without_currently_syncing(owned.pop(REST))
        if rest is not None:
            owned[REST] = rest
    return owned
