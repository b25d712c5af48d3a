"""Small changes to YAML files that people wrote: what is not changed stays as it stands, comments included.

Each function takes a text and gives the changed one, and makes sure that it says what it should: where the text is
too unusual to be changed in place, it is written anew as a whole (and loses its comments).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamline.project.quoting import quote_templates
from streamline.project.yamlfile import PathKey, load_yaml

if TYPE_CHECKING:
    import yaml


def put(text: str, path: Sequence[PathKey], value: Any) -> str:
    """Set the value at `path`; its last key is added where it is not there. The new value is written on one line,
    except a mapping or a list that holds others."""
    text = quote_templates(text)
    wanted = _data(text)
    if wanted is None:
        wanted = {}
    _assign(wanted, path, value)
    return _checked(_put(text, path, value), wanted)


def append(text: str, path: Sequence[PathKey], item: Any) -> str:
    """Append `item` to the list at `path`; the list is made where it is not there."""
    text = quote_templates(text)
    wanted = _data(text)
    if wanted is None:
        wanted = {}
    items = _lookup(wanted, path)
    _assign(wanted, path, [*(items or []), item])
    return _checked(_append(text, path, item), wanted)


def replace_file(path: Path, text: str) -> None:
    """Write a file by rename, keeping its mode."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    if path.exists():
        temporary.chmod(path.stat().st_mode & 0o777)
    temporary.replace(path)


def _put(text: str, path: Sequence[PathKey], value: Any) -> str | None:
    parent = _node(text, path[:-1])
    key = path[-1]
    if parent is None and len(path) > 1:
        return _put(text, path[:-1], {key: value})
    import yaml

    if parent is None:
        return f"{_ended(text)}{_entry(key, value, 0)}"
    if not isinstance(parent, yaml.MappingNode):
        return None
    for key_node, value_node in parent.value:
        if key_node.value == key:
            flow = parent.flow_style or not _is_nested(value)
            new = f" {_flow(value)}" if flow else "\n" + _block(value, parent.start_mark.column + 2).rstrip("\n")
            return f"{text[: key_node.end_mark.index]}:{new}{text[_end(value_node) :]}"
    if parent.flow_style:
        end = parent.end_mark.index - 1
        comma = ", " if parent.value else ""
        return f"{text[:end].rstrip()}{comma}{_flow({key: value})[1:-1]}{text[end:]}"
    end = _line_end(text, _end(parent))
    return f"{_ended(text[:end])}{_entry(key, value, parent.start_mark.column)}{text[end:]}"


def _append(text: str, path: Sequence[PathKey], item: Any) -> str | None:
    import yaml

    node = _node(text, path)
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        return _put_list(text, path, item)
    if node.flow_style:
        end = node.end_mark.index - 1
        return f"{text[:end].rstrip().removesuffix(',')}, {_flow(item)}{text[end:]}"
    end = _line_end(text, _end(node))
    return f"{_ended(text[:end])}{_item(item, node.start_mark.column)}{text[end:]}"


def _put_list(text: str, path: Sequence[PathKey], item: Any) -> str | None:
    """The first item of a list that is absent, null or empty."""
    import yaml

    parent = _node(text, path[:-1])
    if parent is None and len(path) == 1:
        return f"{_ended(text)}{path[0]}:\n{_item(item, 2)}"
    if not isinstance(parent, yaml.MappingNode) or parent.flow_style:
        return None
    column = parent.start_mark.column
    block = _item(item, column + 2)
    for key_node, value_node in parent.value:
        if key_node.value == path[-1]:
            rest = _line_end(text, _end(value_node))
            comment = text[_end(value_node) : rest].rstrip("\n")
            return f"{text[: key_node.end_mark.index]}:{comment}\n{block}{text[rest:]}"
    end = _line_end(text, _end(parent))
    return f"{_ended(text[:end])}{' ' * column}{path[-1]}:\n{block}{text[end:]}"


def _checked(changed: str | None, wanted: Any) -> str:
    from streamline.errors import ConfigError

    if changed is not None:
        try:
            if _data(changed) == wanted:
                return changed
        except ConfigError:
            pass
    import yaml

    return yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True, width=1000)


def _data(text: str) -> Any:
    return load_yaml(Path("text"), text=text, rendered=True).data


def _lookup(data: Any, path: Sequence[PathKey]) -> Any:
    for key in path:
        if isinstance(data, dict):
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
        else:
            return None
    return data


def _assign(data: Any, path: Sequence[PathKey], value: Any) -> None:
    for key in path[:-1]:
        if isinstance(data, dict) and data.get(key) is None:
            data[key] = {}
        data = data[key]
    data[path[-1]] = copy.deepcopy(value)


def _node(text: str, path: Sequence[PathKey]) -> yaml.Node | None:
    """The node at `path`. The parser written in Python: the marks of the other count bytes."""
    import yaml

    node = yaml.compose(text, Loader=yaml.SafeLoader)
    for key in path:
        if isinstance(node, yaml.MappingNode):
            node = next((value for name, value in node.value if name.value == str(key)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
        else:
            return None
    if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null"):
        return None
    return node


def _end(node: yaml.Node) -> int:
    """Index just after a node's last character (a block collection's own mark stands after what follows it)."""
    import yaml

    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _line_end(text: str, index: int) -> int:
    """Index after the line that `index` is in; a block scalar ends with its own line's end."""
    if index > 0 and text[index - 1] == "\n":
        return index
    end = text.find("\n", index)
    return len(text) if end < 0 else end + 1


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _is_nested(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(isinstance(one, dict | list) for one in inner)


def _entry(key: PathKey, value: Any, column: int) -> str:
    if _is_nested(value):
        return f"{' ' * column}{_flow(key)}:\n{_block(value, column + 2)}"
    return f"{' ' * column}{_flow(key)}: {_flow(value)}\n"


def _flow(value: Any) -> str:
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=100_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _item(item: Any, column: int) -> str:
    return _block([item], column) if isinstance(item, dict | list) else f"{' ' * column}- {_flow(item)}\n"


def _block(value: Any, column: int) -> str:
    """`value` in lines of their own from `column`, its innermost collections on one line."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=None, sort_keys=False, allow_unicode=True, width=100_000)
    return "".join(f"{' ' * column}{line}\n" for line in text.splitlines())
