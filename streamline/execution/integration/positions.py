"""The bookmarks that each source of a run starts from, and those that it cannot continue from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.blocks.connector.source import OpenedSource
from streamline.connectors.singer.catalog import Catalog, matches
from streamline.connectors.singer.selection import SelectedStream
from streamline.connectors.singer.state import currently_syncing, rows_have_bookmarks, without_currently_syncing
from streamline.errors import ConfigError
from streamline.execution.run import Run, checking_options
from streamline.flow.codecs import jsontext
from streamline.flow.items import REST
from streamline.state.store import Bookmark, BookmarkOverride, Cause

if TYPE_CHECKING:
    from streamline.connectors.singer.override import Override

BOOKMARK_VARIABLE = "__bookmark_values__"

Proving = Callable[[SelectedStream | None, Sequence[SelectedStream]], list[str]]


class Positions(msgspec.Struct):
    """The bookmarks that a source starts from.

    Args:
        rows: the bookmarks that its taps are given, by stream.
        cause_of: streams whose next bookmark replaces the saved one for another reason than progress.
        overrides: stored overrides that are used now.
        left_out: LOG_BASED streams with a bookmark that this run does not read.
        passed: streams of `left_out` past whose bookmark the tap moves the log as soon as it starts.
        notes: messages for the user.
    """

    rows: dict[str, bytes]
    cause_of: dict[str, Cause]
    overrides: dict[str, list[BookmarkOverride]]
    left_out: list[str]
    notes: list[str]
    passed: list[str] = []


def source_positions(
    context: Run,
    source: OpenedSource,
    selected: Sequence[SelectedStream],
    proving: Proving,
    variables: dict[str, Any],
    *,
    show: bool = False,
) -> Positions:
    """Look up and check a source's bookmarks.

    Args:
        proving: a bookmark's stream, and all that are read → the destinations that prove it.
        show: note bookmarks that a run refuses to continue from.

    Raises:
        ConfigError: the source cannot continue from a bookmark (a new destination, a gap in the log), or an override
            cannot be applied.
    """
    catalog, block = source.catalog, source.block.uuid
    saved = context.store.bookmarks(context.pipeline, block)
    read = {stream.id: stream for stream in selected}
    positions = Positions({}, {}, {}, [], [])
    # What this run has read already is neither refreshed nor overridden once more.
    begun = {name for name, bookmark in saved.items() if bookmark.run_id == context.run_id}
    refreshed = _refreshed(context, read, saved) - begun
    for stream in refreshed:
        positions.cause_of[stream] = "full-refresh"
    for name, bookmark in saved.items():
        if name in refreshed:
            continue
        chosen = read.get(name)
        if catalog is not None and chosen is None and catalog.get(name) is not None:
            if bookmark.replication_method == "LOG_BASED":
                positions.left_out.append(name)
            continue
        if chosen is not None and not _same_replication(bookmark, chosen, positions, block):
            continue
        named = chosen or next((stream for stream in selected if name in (stream.stream, *stream.names)), None)
        try:
            new = _new_sinks(context, bookmark, proving(named, selected), block)
        except ConfigError as error:
            if not show:
                raise
            positions.notes.append(refusal(error))
            new = []
        if new:
            # Though it does not move: from now on these destinations have what comes after it.
            positions.cause_of.setdefault(name, "run")
        positions.rows[name] = bookmark.value.encode("utf-8", "surrogateescape")
    if refreshed and catalog is not None:
        _refresh_in_state(
            positions.rows, [stream for name, stream in read.items() if name in refreshed], catalog, block
        )
    _apply_overrides(context, source, selected, variables, positions, begun)
    in_log = [name for name, stream in read.items() if stream.replication_method == "LOG_BASED"]
    starts = [positions.rows[name] for name in in_log if name in positions.rows]
    positions.passed = [name for name in positions.left_out if _passes(starts, saved[name].value.encode())]
    return positions


def _refreshed(context: Run, read: Mapping[str, SelectedStream], saved: Mapping[str, Bookmark]) -> set[str]:
    """Return the streams that are read from the start. LOG_BASED streams that only share a log with them are not."""
    if not context.options.full_refresh:
        return set()
    patterns = context.options.streams
    if not patterns:
        return {*read, *saved}
    refreshed = set()
    for stream in read.values():
        if any(matches(pattern, (stream.id, stream.stream, *stream.names)) for pattern in patterns):
            refreshed.add(stream.id)
            # Some taps key bookmarks by the stream's name.
            refreshed |= {name for name in (stream.stream, *stream.names) if name in saved and name not in read}
    return refreshed


def _refresh_in_state(
    rows: dict[str, bytes], refreshed: Sequence[SelectedStream], catalog: Catalog, block: str
) -> None:
    """Take streams that are read from the start out of a state without `bookmarks`.

    Raises:
        ConfigError: the state does not tell its streams apart.
    """
    if REST not in rows or rows_have_bookmarks(rows):
        return
    try:
        members = jsontext.members(rows[REST])
    except jsontext.NotAnObjectError:
        members = {}
    followed = [stream for stream in refreshed if stream.replication_method != "FULL_TABLE"]
    if followed and not any(name in members for stream in catalog for name in (stream.id, *stream.names)):
        raise ConfigError(
            f"--full-refresh --stream {followed[0].id}: the saved state has no bookmark for each stream",
            where=block,
            hint="read all streams of this source from the start: --full-refresh without --stream",
            code="bookmark.not_by_stream",
        )
    own = {name for stream in refreshed for name in (stream.id, *stream.names)}
    kept = {name: text for name, text in members.items() if name not in own}
    if members and not kept:
        del rows[REST]
    elif members:
        rows[REST] = jsontext.join_members(kept)


_LOG_PLACES = ("lsn", "log_file", "log_pos", "gtid", "replication_key_value", "token", "scn")


def _passes(starts: Sequence[bytes], left_out: bytes) -> bool:
    """Return whether a tap started from these bookmarks may move its log past the bookmark of an omitted stream.

    Taps confirm the smallest log position that they are given. Positions that are no numbers can only be compared for
    equality.
    """
    places = [_log_place(text) for text in starts]
    own = _log_place(left_out)
    if not places or own in places:
        return False
    if isinstance(own, int) and all(isinstance(place, int) for place in places):
        return min(place for place in places if isinstance(place, int)) > own
    return True


def _log_place(text: bytes) -> object:
    """Return the log position in a bookmark, or all of it where no key of one is known."""
    try:
        members = jsontext.members(text)
    except jsontext.JSONTextError:
        return jsontext.canonical(text)
    places = {name: jsontext.canonical(members[name]) for name in _LOG_PLACES if name in members}
    if len(places) == 1:
        (place,) = places.values()
        return int(place) if place.isdigit() else place
    return sorted(places.items()) or jsontext.canonical(text)


def group_rows(
    rows: dict[str, bytes], streams: Sequence[SelectedStream], catalog: Catalog | None, *, shared: bool
) -> dict[str, bytes]:
    """Return the rows that one tap process starts from: its streams', and those of no stream of the catalog."""
    if catalog is None:
        return dict(rows)
    own = {stream.id for stream in streams}
    result = {name: text for name, text in rows.items() if name in own or (name != REST and catalog.get(name) is None)}
    if REST in rows:
        names = {name for stream in streams for name in (stream.id, stream.stream, *stream.names)}
        syncing = currently_syncing(rows[REST])
        left_out = syncing is not None and syncing not in names
        rest = without_currently_syncing(rows[REST]) if shared or left_out else rows[REST]
        if rest is not None:
            result[REST] = rest
    return result


def _same_replication(bookmark: Bookmark, stream: SelectedStream, positions: Positions, block: str) -> bool:
    """Return whether a bookmark was made by reading the stream as it is read now."""
    key = ",".join(stream.bookmark_properties) or None
    before = (bookmark.replication_method, bookmark.replication_key)
    if before[0] is None or stream.replication_method is None or before == (stream.replication_method, key):
        return True
    positions.notes.append(
        f"stream {stream.id}: its bookmark was made by {_method_words(*before)} and is not used, because the stream is "
        f"now read by {_method_words(stream.replication_method, key)}; it is read from the start"
    )
    positions.cause_of[stream.id] = "full-refresh"
    return False


def _method_words(method: str | None, key: str | None) -> str:
    return f"{method} on {key}" if key else str(method)


def refusal(error: ConfigError) -> str:
    """Return the note about a position that a run refuses to continue from."""
    return f"a run fails: {error.message}. {error.hint or ''}".rstrip()


def _new_sinks(context: Run, bookmark: Bookmark, sinks: Sequence[str], block: str) -> list[str]:
    """Return the destinations that continue from a bookmark that they have not proven, because a gap is accepted.

    Raises:
        ConfigError: the source cannot continue from the bookmark.
    """
    if bookmark.gap:
        raise ConfigError(
            f"stream {bookmark.stream!r} has a gap: a run that left it out moved the log past its bookmark",
            where=block,
            hint="changes between the two can no longer be read. Read the stream again: "
            f"streamline run {context.pipeline} --full-refresh --stream {bookmark.stream}",
            code="bookmark.gap",
        )
    new = [sink for sink in sinks if sink not in bookmark.sinks]
    if bookmark.sinks and new and not context.options.accept_gap:
        raise ConfigError(
            f"destination {', '.join(map(repr, new))} has none of the records before the bookmark of stream "
            f"{bookmark.stream!r}",
            where=block,
            hint="read everything again with --full-refresh, or continue from here with --accept-gap",
            code="bookmark.destination_new",
        )
    return new if bookmark.sinks else []


def _apply_overrides(
    context: Run,
    source: OpenedSource,
    selected: Sequence[SelectedStream],
    variables: dict[str, Any],
    positions: Positions,
    begun: Collection[str],
) -> None:
    if not context.options.bookmarks and not variables.get(BOOKMARK_VARIABLE):
        return
    from streamline.connectors.singer.override import parse_overrides  # hardly any run has some

    with checking_options():
        for override in _asked(context, source.catalog, selected):
            _apply(override, "--bookmark", source, selected, positions, begun)
    values = variables.get(BOOKMARK_VARIABLE)
    if not values:
        return
    overrides = parse_overrides(values).get(source.block.uuid, [])
    once = BOOKMARK_VARIABLE not in context.options.variables
    consumed = context.store.consumed_overrides(context.pipeline, source.block.uuid) if once else set()
    for override in overrides:
        stored = BookmarkOverride(
            override.stream, override.column, jsontext.canonical(jsontext.encode(override.value)).decode()
        )
        if stored in consumed:
            continue
        for name in _apply(override, BOOKMARK_VARIABLE, source, selected, positions, begun):
            if once:
                positions.overrides.setdefault(name, []).append(stored)


def _asked(context: Run, catalog: Catalog | None, selected: Sequence[SelectedStream]) -> list[Override]:
    """Return the `--bookmark` options for streams that this source reads."""
    from streamline.connectors.singer.override import parse_override

    names = {name for stream in selected for name in (stream.id, stream.stream, *stream.names)}
    overrides = [parse_override(text) for text in context.options.bookmarks]
    return [each for each in overrides if catalog is None or each.stream in names]


def _apply(
    override: Override,
    where: str,
    source: OpenedSource,
    selected: Sequence[SelectedStream],
    positions: Positions,
    begun: Collection[str],
) -> list[str]:
    from streamline.connectors.singer.override import override_rows

    stream = source.catalog.require(override.stream, where=where) if source.catalog is not None else None
    for each in selected:
        if stream is not None and each.id == stream.id and override.column in stream.properties:
            _refuse_other_column(override, each, where)
    changed = override_rows(override, positions.rows, stream, source.traits, where=where)
    changed = {name: text for name, text in changed.items() if name not in begun}
    positions.rows.update(changed)
    for name in changed:
        positions.cause_of[name] = "override"
    return list(changed)


def _refuse_other_column(override: Override, stream: SelectedStream, where: str) -> None:
    """Refuse a value that the tap would not look at."""
    if stream.replication_method != "FULL_TABLE" and (
        not stream.bookmark_properties or override.column in stream.bookmark_properties
    ):
        return
    by = " and ".join(stream.bookmark_properties)
    raise ConfigError(
        f"stream {override.stream!r} is read by {stream.replication_method or 'INCREMENTAL'}"
        f"{f' on {by}' if by else ''}, not by {override.column!r}",
        where=where,
        hint=f"give a value of {by}" if by else "set replication_method: INCREMENTAL and bookmark_properties",
        code="bookmark.other_column",
    )
