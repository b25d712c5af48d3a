"""Edits the `streams:` of a block's YAML file: what `streamline streams set` and `select` do.

A change says nothing about the streams that it does not name: they stay selected, or not, as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from streamline.blocks.call import shown_block
from streamline.connectors.singer.catalog import is_glob, matches
from streamline.connectors.singer.settings import DEFAULT, Side
from streamline.errors import ConfigError
from streamline.project.yamledit import edit_text, new_node, put
from streamline.project.yamlfile import load_yaml

if TYPE_CHECKING:
    from streamline.pipeline.model import Block
    from streamline.project.project import Project

Entries: TypeAlias = dict[str, dict[str, Any]]
"""`streams:` as written: name or glob → settings, in the file's order, templates not rendered."""


def editable_file(project: Project, block: Block) -> Path:
    """Return the YAML file that holds the block's stream settings.

    Raises:
        ConfigError: the block has no file of its own, or is written in Python.
    """
    if block.language == "python":
        raise ConfigError(
            f"the streams of '{block.uuid}' are settings that its functions return: it is written in Python",
            where=shown_block(project, block),
            hint="edit the function decorated with @data_integration_selected_streams for which streams, and "
            "@data_integration_catalog for how",
            code="setting.not_editable",
        )
    if block.file is None:
        raise ConfigError(
            f"block '{block.uuid}' has no file of its own: it is written in metadata.yaml",
            hint="edit its `streams:` there by hand",
            code="setting.not_editable",
        )
    return block.file


def edit_streams(text: str, side: Side, change: Callable[[Entries], None], *, shown: str) -> str:
    """Return the text of a block's file with its stream settings changed.

    Args:
        change: changes the entries in place.

    Raises:
        ConfigError: the file is not YAML, or `streams:` is written in a way that can't be edited.
    """
    before = _entries(text, shown)
    after = deepcopy(before)
    change(after)
    if after == before:
        return text
    _keep_selection(before, after, side)
    _drop_needless(before, after, side)
    changed = edit_text(text, lambda document: _write(document, before, after))
    if _entries(changed, shown) != after or _others(changed, shown) != _others(text, shown):
        raise ConfigError(
            "`streams` can't be changed: it uses YAML anchors or aliases",
            where=load_yaml(Path(shown), text=text, shown=shown).where(("streams",)),
            hint="edit it by hand",
            code="setting.not_editable",
        )
    return changed


def _others(text: str, shown: str) -> Any:
    """Return what the file says beside `streams`, which an alias could change, too."""
    data = load_yaml(Path(shown), text=text, shown=shown).data
    return {key: value for key, value in data.items() if key != "streams"} if isinstance(data, dict) else data


def set_settings(entries: Entries, name: str, values: Mapping[str, Any], unset: Sequence[str] = ()) -> None:
    """Set and remove settings of one stream, or of all that a glob matches."""
    removed = set(unset)
    if values.get("replication_method") not in (None, "INCREMENTAL") and "bookmark_properties" not in values:
        removed.add("bookmark_properties")  # they mean nothing to the other methods
    if name not in entries and not values:
        return
    entry = entries.setdefault(name, {})
    for key in removed:
        entry.pop(key, None)
    entry.update(values)
    if not is_glob(name):
        return
    # An exact name, and a glob that comes later, would win over this one.
    for other, settings in _matched(entries, name).items():
        if other != name:
            settings.update({key: value for key, value in values.items() if key in settings})
    later = list(entries)[list(entries).index(name) + 1 :]
    if any(is_glob(other) and values.keys() & entries[other].keys() for other in later if not _covers(name, other)):
        entries[name] = entries.pop(name)


def select_streams(entries: Entries, names: Sequence[str], selected: bool | str, *, only: bool = False) -> None:
    """Select streams, or not, or leave them to the catalog (`default`); with `only`, deselect all others."""
    if only:
        for settings in entries.values():
            settings.pop("selected", None)
        _put_first(entries, "*", {**entries.get("*", {}), "selected": False})
    listed = _lists(entries)
    for name in names:
        for settings in _matched(entries, name).values():
            settings.pop("selected", None)
        entry = entries.setdefault(name, {})
        rest = any(is_glob(other) and "selected" in settings for other, settings in entries.items())
        if selected is not True or rest or not listed:
            entry["selected"] = selected


def _matched(entries: Entries, name: str) -> Entries:
    return {other: settings for other, settings in entries.items() if _covers(name, other)}


def _covers(name: str, other: str) -> bool:
    return name == other or (is_glob(name) and matches(name, (other,)))


def _lists(entries: Entries) -> bool:
    """Return whether the entries name streams to take, so that others are not taken."""
    return any(settings.get("selected", True) not in (False, DEFAULT) for settings in entries.values())


def _keep_selection(before: Entries, after: Entries, side: Side) -> None:
    """Keep the streams selected that no entry names, where the first entry to list streams comes or the last goes."""
    if _lists(before) == _lists(after):
        return
    rest = after.get("*", {})
    if "selected" in rest:
        return
    if _lists(before):
        _put_first(after, "*", {**rest, "selected": False})
    elif side == "source":
        _put_first(after, "*", {**rest, "selected": DEFAULT})
    elif "*" not in after:
        _put_first(after, "*", {})


def _drop_needless(before: Entries, after: Entries, side: Side) -> None:
    """Remove entries that this change made say no more than `"*"` says."""
    rest = after.get("*")
    if rest is None:
        return
    globs = any(is_glob(name) and name != "*" and "selected" in settings for name, settings in after.items())
    for name, settings in list(after.items()):
        if name == "*" or before.get(name) == settings:
            continue
        same = settings.keys() == {"selected"} and settings["selected"] == rest.get("selected")
        if not settings or (same and (not globs or is_glob(name))):
            del after[name]
    if after == {"*": {"selected": DEFAULT}} or (side == "destination" and after == {"*": {}}):
        after.clear()


def _put_first(entries: Entries, name: str, settings: dict[str, Any]) -> None:
    others = {other: value for other, value in entries.items() if other != name}
    entries.clear()
    entries.update({name: settings, **others})


def _entries(text: str, shown: str) -> Entries:
    file = load_yaml(Path(shown), text=text, shown=shown)
    if "{%" in text:
        raise ConfigError(
            "a file that is rendered as a whole (it holds `{%`) can't be edited by commands",
            where=shown,
            hint="edit its `streams:` by hand",
            code="setting.not_editable",
        )
    raw = file.mapping().get("streams")
    if isinstance(raw, list) and all(isinstance(name, str) for name in raw):
        return {name: {} for name in raw}
    entries: Entries = {}
    for name, settings in (raw if isinstance(raw, dict) else {}).items():
        if isinstance(settings, bool):
            settings = {"selected": settings}
        if settings is not None and not isinstance(settings, dict):
            break
        entries[name] = dict(settings or {})
    if len(entries) != len(raw or ()):
        raise ConfigError(
            "`streams` is not written as a mapping of streams to their settings, so it can't be changed",
            where=file.where(("streams",)),
            hint="edit it by hand",
            code="setting.not_editable",
        )
    return entries


def _write(document: Any, before: Entries, after: Entries) -> None:
    streams: Any = document.get("streams")
    if not after:
        document.pop("streams", None)
    elif isinstance(streams, list) and not any(after.values()):
        for name in [name for name in streams if name not in after]:
            streams.remove(name)
        streams.extend(new_node(name) for name in after if name not in before)
    elif not hasattr(streams, "move_to_end"):  # no mapping
        put(document, ("streams",), after)
        document["streams"].fa.set_block_style()
    else:
        for name in before.keys() - after.keys():
            del streams[name]
        for name, settings in after.items():
            if before.get(name) != settings or name not in streams:
                _write_entry(streams, name, before.get(name, {}), settings, first=name == next(iter(after)))
        if list(streams) != list(after):
            for name in after:
                streams.move_to_end(name)


def _write_entry(streams: Any, name: str, before: dict[str, Any], settings: dict[str, Any], *, first: bool) -> None:
    entry = streams.get(name)
    if name not in streams:
        streams.insert(0 if first else len(streams), new_node(name), new_node(settings))
    elif isinstance(entry, dict) and settings:
        for key in before.keys() - settings.keys():
            entry.pop(key, None)
        for key, value in settings.items():
            if key not in before or before[key] != value:
                put(entry, (key,), value)
    else:
        put(streams, (name,), settings)
