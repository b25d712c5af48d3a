"""Where each source of a run starts from, and what must not be continued from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from streamline.connectors.singer.catalog import Catalog, matches
from streamline.connectors.singer.override import Override, override_rows, parse_override, parse_overrides
from streamline.connectors.singer.selection import SelectedStream, TapTraits
from streamline.connectors.singer.state import without_currently_syncing
from streamline.errors import ConfigError
from streamline.execution.integration.context import RunContext
from streamline.flow.codecs import jsontext
from streamline.flow.items import REST
from streamline.state.store import Bookmark, BookmarkOverride, Cause

BOOKMARK_VARIABLE = "__bookmark_values__"


class Positions(msgspec.Struct):
    """A source's start.

    Args:
        rows: the bookmarks that its taps get, by stream.
        cause_of: streams whose next bookmark replaces the saved one for another reason than progress.
        overrides: stored overrides that are used now.
        left_out: LOG_BASED streams with a bookmark that this run does not read.
        passed: those of them past which the tap moves the log by starting from the others' bookmarks.
        notes: what the user should know.
    """

    rows: dict[str, bytes]
    cause_of: dict[str, Cause]
    overrides: dict[str, list[BookmarkOverride]]
    left_out: list[str]
    notes: list[str]
    passed: list[str] = []


def source_positions(
    context: RunContext,
    *,
    pipeline: str,
    block: str,
    catalog: Catalog | None,
    selected: Sequence[SelectedStream],
    sinks: Sequence[str],
    traits: TapTraits,
    variables: dict[str, Any],
) -> Positions:
    """Look up and check a source's bookmarks.

    Raises:
        ConfigError: a bookmark that can't be continued from: a destination that never had what lies before it,
            a gap in the log, an override that can't be applied.
    """
    saved = context.store.bookmarks(pipeline, block)
    read = {stream.id: stream for stream in selected}
    positions = Positions({}, {}, {}, [], [])
    refreshed = _refreshed(context, read, saved)
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
        _check_continues(context, bookmark, sinks, block)
        positions.rows[name] = bookmark.value.encode("utf-8", "surrogateescape")
    _apply_overrides(context, pipeline, block, catalog, selected, traits, variables, positions)
    in_log = [name for name, stream in read.items() if stream.replication_method == "LOG_BASED"]
    starts = [positions.rows[name] for name in in_log if name in positions.rows]
    positions.passed = [name for name in positions.left_out if _passes(starts, saved[name].value.encode())]
    return positions


def _refreshed(context: RunContext, read: Mapping[str, SelectedStream], saved: Mapping[str, Bookmark]) -> set[str]:
    """The streams that are read anew. A LOG_BASED stream that comes along with one that was asked for is not."""
    if not context.options.full_refresh:
        return set()
    asked = context.options.streams
    if not asked:
        return {*read, *saved}
    found = set()
    for stream in read.values():
        names = (stream.id, stream.stream, *stream.names)
        if any(one in names or matches(one, names) for one in asked):
            found.add(stream.id)
    return found


_LOG_PLACES = ("lsn", "log_file", "log_pos", "gtid", "replication_key_value", "token", "scn")


def _passes(starts: Sequence[bytes], left_out: bytes) -> bool:
    """Whether a tap that starts from these bookmarks may let its log go past the bookmark of a stream left out.

    Taps confirm the smallest place that they are given. Places that are no numbers can only be told apart.
    """
    places = [_log_place(text) for text in starts]
    own = _log_place(left_out)
    if not places or own in places:
        return False
    if isinstance(own, int) and all(isinstance(place, int) for place in places):
        return min(place for place in places if isinstance(place, int)) > own
    return True


def _log_place(text: bytes) -> object:
    """What in a bookmark says where in the log it stands; all of it if nothing is known to."""
    try:
        members = jsontext.members(text)
    except jsontext.JSONTextError:
        return jsontext.canonical(text)
    found = {name: jsontext.canonical(members[name]) for name in _LOG_PLACES if name in members}
    if len(found) == 1:
        (place,) = found.values()
        return int(place) if place.isdigit() else place
    return sorted(found.items()) or jsontext.canonical(text)


def group_rows(
    rows: dict[str, bytes], streams: Sequence[SelectedStream], catalog: Catalog | None, *, shared: bool
) -> dict[str, bytes]:
    """The rows that one tap process is started with: its streams', and those that belong to none of the catalog."""
    if catalog is None:
        return dict(rows)
    own = {stream.id for stream in streams}
    result = {name: text for name, text in rows.items() if name in own or (name != REST and catalog.get(name) is None)}
    if REST in rows:
        rest = without_currently_syncing(rows[REST]) if shared else rows[REST]
        if rest is not None:
            result[REST] = rest
    return result


def _same_replication(bookmark: Bookmark, stream: SelectedStream, positions: Positions, block: str) -> bool:
    """Whether a bookmark was made by reading the stream as it is read now."""
    key = ",".join(stream.bookmark_properties) or None
    before = (bookmark.replication_method, bookmark.replication_key)
    if before[0] is None or stream.replication_method is None or before == (stream.replication_method, key):
        return True
    positions.notes.append(
        f"stream {stream.id}: its position was made by {_method_words(*before)} and is not used, because it is read by "
        f"{_method_words(stream.replication_method, key)} now; it is read from the start"
    )
    positions.cause_of[stream.id] = "full-refresh"
    return False


def _method_words(method: str | None, key: str | None) -> str:
    return f"{method} on {key}" if key else str(method)


def _check_continues(context: RunContext, bookmark: Bookmark, sinks: Sequence[str], block: str) -> None:
    if bookmark.gap:
        raise ConfigError(
            f"stream {bookmark.stream!r} has a gap: it was left out of a run that moved the log on past its position",
            where=block,
            hint="changes between the two can't be read any more. Read it anew: "
            f"streamline run {context.pipeline} --full-refresh --stream {bookmark.stream}",
        )
    new = [sink for sink in sinks if sink not in bookmark.sinks]
    if bookmark.sinks and new and not context.options.accept_gap:
        raise ConfigError(
            f"destination {', '.join(map(repr, new))} has none of what lies before the position of stream "
            f"{bookmark.stream!r}",
            where=block,
            hint="read everything anew with --full-refresh, or go on from here with --accept-gap",
        )


def _apply_overrides(
    context: RunContext,
    pipeline: str,
    block: str,
    catalog: Catalog | None,
    selected: Sequence[SelectedStream],
    traits: TapTraits,
    variables: dict[str, Any],
    positions: Positions,
) -> None:
    for override in _asked(context, catalog, selected):
        _apply(override, "--bookmark", catalog, traits, positions)
    values = variables.get(BOOKMARK_VARIABLE)
    if not values:
        return
    overrides = parse_overrides(values).get(block, [])
    once = BOOKMARK_VARIABLE not in context.options.variables
    consumed = context.store.consumed_overrides(pipeline, block) if once else set()
    for override in overrides:
        stored = BookmarkOverride(
            override.stream, override.column, jsontext.canonical(jsontext.encode(override.value)).decode()
        )
        if stored in consumed:
            continue
        for name in _apply(override, BOOKMARK_VARIABLE, catalog, traits, positions):
            if once:
                positions.overrides.setdefault(name, []).append(stored)


def _asked(context: RunContext, catalog: Catalog | None, selected: Sequence[SelectedStream]) -> list[Override]:
    """The `--bookmark` options that are about streams that this source reads."""
    names = {name for stream in selected for name in (stream.id, stream.stream, *stream.names)}
    overrides = [parse_override(text) for text in context.options.bookmarks]
    return [each for each in overrides if catalog is None or each.stream in names]


def _apply(
    override: Override, where: str, catalog: Catalog | None, traits: TapTraits, positions: Positions
) -> list[str]:
    stream = catalog.require(override.stream, where=where) if catalog is not None else None
    changed = override_rows(override, positions.rows, stream, traits, where=where)
    positions.rows.update(changed)
    for name in changed:
        positions.cause_of[name] = "override"
    return list(changed)
