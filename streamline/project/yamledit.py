"""Edits YAML files that people wrote. Comments, order, quotes and unknown keys stay.

ruamel.yaml keeps all of these, but lays out the whole document anew. So only the lines that a change touches are taken
from its output; all other lines stay byte for byte, unquoted `{{ … }}` values included.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from streamline.errors import ConfigError
from streamline.project.files import replace_file
from streamline.project.quoting import quote_templates
from streamline.project.yamlfile import PathKey, load_yaml, read_text

# A key alone in its line, and the indentation of the list or the mapping below it.
_KEY = r"^( *)[^\s#-][^\n]*:[ \t]*(?:#[^\n]*)?\n(?:[ \t]*(?:#[^\n]*)?\n)*\1"
_SEQUENCE = re.compile(_KEY + r"( *)- ", re.MULTILINE)
_MAPPING = re.compile(_KEY + r"( +)[^\s#-]", re.MULTILINE)


def edit_text(text: str, change: Callable[[Any], None]) -> str:
    """Return `text` with a change made to its document.

    Args:
        change: gets the document, a ruamel.yaml mapping, and changes it in place. Values that it adds come from
            `new_node`.

    Raises:
        ConfigError: `text` is not YAML that this project reads, or that can be edited.
    """
    written, text = text, text.replace("\r\n", "\n")
    _data(text)  # errors that name the line
    from ruamel.yaml.error import YAMLError

    yaml = _round_trip(text)
    try:
        document = yaml.load(quote_templates(text))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(
            f"this YAML can be read, but not edited by a command: {getattr(error, 'problem', None) or error}"
            + (f" (line {mark.line + 1})" if mark else ""),
            hint="edit the file by hand",
            code="setting.not_editable",
        ) from error
    if document is None:
        # Comments at most, which belong to no node.
        document = _block_mapping()
        change(document)
        return _line_endings_of(written, _ended(text) + _dumped(yaml, document))
    before = _dumped(yaml, document)
    change(document)
    return _line_endings_of(written, _merged(text, before, _dumped(yaml, document)))


def put(document: Any, path: Sequence[PathKey], value: Any) -> None:
    """Set the value at `path` in a document; mappings on the way are made where they are missing."""
    for key in path[:-1]:
        if isinstance(document, dict) and document.get(key) is None:
            document[key] = _block_mapping()
        document = document[key]
    node = new_node(value)
    before: Any = document.get(path[-1]) if isinstance(document, dict) else document[path[-1]]
    if value and isinstance(value, dict | list) and type(before) is type(node) and before.fa.flow_style() is False:
        node.fa.set_block_style()
    document[path[-1]] = node


def append(document: Any, path: Sequence[PathKey], item: Any) -> None:
    """Append to the list at `path` in a document; the list is made where it is missing or empty."""
    items = document
    for key in path:
        items = items.get(key) if isinstance(items, dict) else items[key]
    if items:
        items.append(new_node(item))
    else:
        put(document, path, [item])


def to_yaml(data: dict[str, Any]) -> str:
    """Return a mapping as YAML; lists and mappings that hold no others stand on one line."""
    return edit_text("", lambda document: document.update(new_node(data)))


def new_node(value: Any) -> Any:
    """Return plain data as a node for a document, with quotes where YAML 1.1 would read text as something else."""
    import yaml
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString, SingleQuotedScalarString

    if isinstance(value, dict):
        mapping = CommentedMap((new_node(key), new_node(child)) for key, child in value.items())
        _set_style(mapping, value.values())
        return mapping
    if isinstance(value, list | tuple):
        sequence = CommentedSeq(new_node(child) for child in value)
        _set_style(sequence, value)
        return sequence
    if type(value) is not str:
        return value
    if value == "*":
        return DoubleQuotedScalarString(value)
    if "\n" in value.rstrip("\n") and value == value.strip(" ") and value.isprintable():
        return LiteralScalarString(value)
    resolver: Any = yaml.SafeLoader("")
    if resolver.resolve(yaml.ScalarNode, value, (True, False)) != "tag:yaml.org,2002:str":
        return SingleQuotedScalarString(value)
    return value


def edit_file(path: Path, change: Callable[[str], str], *, shown: str | None = None) -> tuple[str, str]:
    """Replace a file's text by what `change` makes of it, one process at a time; return both texts.

    Raises:
        ConfigError: the file can't be read or written, or `change` raised it; the file is as it was.
    """
    with locked(path.parent):
        before = read_text(path, shown=shown)
        after = change(before)
        if after != before:
            try:
                replace_file(path, after)
            except OSError as error:
                raise ConfigError(
                    f"can't be written: {error.strerror}", where=shown or str(path), code="file.not_writable"
                ) from error
        return before, after


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, for which other processes that edit a file in it wait."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _line_endings_of(written: str, edited: str) -> str:
    """Return `edited` with the line endings of `written`; a new line ends as most of the lines there do."""
    if "\r\n" not in written:
        return edited
    newline = "\r\n" if 2 * written.count("\r\n") > written.count("\n") else "\n"
    lines, result = _ended(written, newline).splitlines(keepends=True), edited.splitlines(keepends=True)
    plain = [line.replace("\r\n", "\n") for line in lines]
    endings = [line.replace("\n", newline) for line in result]
    for at, start, size in SequenceMatcher(None, plain, result, autojunk=False).get_matching_blocks():
        endings[start : start + size] = lines[at : at + size]
    return "".join(endings)


def _round_trip(text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import RoundTripConstructor

    class Constructor(RoundTripConstructor):
        """Makes text of every key, as `load_yaml` does: a change names keys as they are read there."""

        def construct_document(self, node: Any) -> Any:
            _make_keys_text(node)
            return super().construct_document(node)

    yaml = YAML()
    yaml.Constructor = Constructor
    yaml.preserve_quotes = True
    yaml.width = 100_000
    yaml.allow_duplicate_keys = True  # refused already, with a better message
    sequence, mapping = _SEQUENCE.search(text), _MAPPING.search(text)
    offset = len(sequence[2]) if sequence else 2
    yaml.indent(mapping=len(mapping[2]) if mapping else 2, sequence=offset + 2, offset=offset)
    return yaml


def _make_keys_text(node: Any) -> None:
    for child in node.value if isinstance(node.value, list) else ():
        if isinstance(child, tuple):  # a key and its value
            key, child = child
            if isinstance(key.value, str) and key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
        _make_keys_text(child)


def _dumped(yaml: Any, document: Any) -> str:
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _block_mapping() -> Any:
    from ruamel.yaml.comments import CommentedMap

    return CommentedMap()


def _set_style(node: Any, children: Any) -> None:
    if any(isinstance(child, dict | list | tuple) for child in children):
        node.fa.set_block_style()
    else:
        node.fa.set_flow_style()


def _merged(text: str, before: str, after: str) -> str:
    """Return `text` with the lines replaced that differ between `before`, another layout of it, and `after`."""
    lines, old, new = (part.splitlines(keepends=True) for part in (_ended(text), before, after))
    position: dict[int, int] = {}
    for _, first, last, start, end in SequenceMatcher(None, old, lines, autojunk=False).get_opcodes():
        if last - first == end - start:
            position.update(zip(range(first, last), range(start, end), strict=True))
        position.setdefault(first, start)
        position[last] = end
    merged = list(lines)
    for kind, first, last, start, end in reversed(SequenceMatcher(None, old, new, autojunk=False).get_opcodes()):
        if kind == "equal":
            continue
        # To ruamel.yaml a comment belongs to what stands before it, to people mostly to what comes after it.
        if kind == "insert":
            while first and _is_comment(old[first - 1]):
                first -= 1
            last = first
        elif not (end > start and _is_comment(new[end - 1])):
            while last > first and _is_comment(old[last - 1]):
                last -= 1
        if first not in position or last not in position:
            return after
        merged[position[first] : position[last]] = new[start:end]
    result = "".join(merged)
    try:
        return result if _data(result) == _data(after) else after
    except ConfigError:
        return after


def _is_comment(line: str) -> bool:
    return line.lstrip()[:1] in ("", "#")


def _data(text: str) -> Any:
    return load_yaml(Path("text"), text=text, rendered=False).data


def _ended(text: str, newline: str = "\n") -> str:
    return text if not text or text.endswith("\n") else text + newline
