"""Read YAML files, with the line of each value for error messages.

Differences from PyYAML's safe loader: duplicate keys are errors, unquoted `{{ … }}` values are quoted first, and text
that YAML 1.1 converts by surprise stays text (dates, `12:30`, which would be 750, `0123`, which would be 83), so that a
tap gets its config as written. Keys are always text, also `on:`, `no:` and `1:`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from streamline.errors import ConfigError
from streamline.project.quoting import quote_templates
from streamline.project.suggest import suggestion

if TYPE_CHECKING:
    import yaml

PathKey = str | int
_MAX_DEPTH = 200
_MAX_VALUES = 200_000
"""Values of a file whose aliases (`*x`) repeat most of them; what reads the file copies each."""

_loader: Any = None


class YamlFile:
    """The data of a YAML file, and the line of each value.

    Args:
        path: the file.
        data: dicts, lists and scalars; None for an empty file.
        text: the parsed text.
        rendered: the text was rendered by Jinja before it was parsed, so its strings contain no templates.
        shown: the file's name in errors; relative to the project, if known.
        duplicates: warnings about duplicate keys, if these are allowed.
    """

    def __init__(
        self,
        path: Path,
        data: Any,
        text: str,
        *,
        rendered: bool = False,
        shown: str = "",
        duplicates: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.duplicates = list(duplicates)
        self.data = data
        self.text = text
        self.rendered = rendered
        self.shown = shown or str(path)
        self._root: yaml.Node | None = None

    def where(self, path: Sequence[PathKey] = ()) -> str:
        """Return `file:line` of the value at `path` (keys and indexes), or of its last existing parent."""
        import yaml

        try:
            node = self._node()
        except yaml.YAMLError:
            return self.shown
        if node is None:
            return f"{self.shown}:1"
        line = node.start_mark.line
        for key in path:
            child = _child(node, key)
            if child is None:
                break
            mark, node = child
            line = mark.line
        return f"{self.shown}:{line + 1}"

    def is_plain(self, path: Sequence[PathKey]) -> bool:
        """Return whether the value at `path` is an unquoted scalar."""
        import yaml

        node = self._node()
        for key in path:
            child = _child(node, key) if node is not None else None
            if child is None:
                return False
            node = child[1]
        return isinstance(node, yaml.ScalarNode) and not node.style

    def _node(self) -> yaml.Node | None:
        import yaml

        if self._root is None:
            self._root = yaml.compose(self.text, Loader=_loader_class())
        return self._root

    def fail(
        self, message: str, path: Sequence[PathKey] = (), *, hint: str | None = None, code: str = "setting.invalid"
    ) -> NoReturn:
        """Raise the ConfigError that `error` returns."""
        raise self.error(message, path, hint=hint, code=code)

    def error(
        self, message: str, path: Sequence[PathKey] = (), *, hint: str | None = None, code: str = "setting.invalid"
    ) -> ConfigError:
        """Return a ConfigError with the file and line of `path`."""
        return ConfigError(message, where=self.where(path), hint=hint, code=code)

    def mapping(self, path: Sequence[PathKey] = ()) -> dict[str, Any]:
        """Return the mapping at `path`; an empty one if it is missing or null.

        Raises:
            ConfigError: the value is not a mapping.
        """
        value = self.data
        for key in path:
            value = value.get(key) if isinstance(value, dict) else value[key] if isinstance(key, int) else None
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fail(f"{dotted(path)} must be a mapping, not {kind_of(value)}", path, code="yaml.wrong_type")
        return value

    def refuse_unknown(self, known: Iterable[str], path: Sequence[PathKey] = ()) -> None:
        """Raise a ConfigError for the first key of the mapping at `path` that is not in `known`."""
        known = set(known)
        for key in self.mapping(path):
            if key not in known:
                at = f" in {dotted(path)}" if path else ""
                self.fail(f"unknown key '{key}'{at}", (*path, key), hint=suggestion(key, known), code="setting.unknown")


def load_yaml(
    path: Path,
    *,
    text: str | None = None,
    rendered: bool = False,
    shown: str | None = None,
    allow_duplicates: bool = False,
) -> YamlFile:
    """Read a YAML file.

    Args:
        path: the file.
        text: its text; None: read the file.
        rendered: the text was rendered by Jinja.
        shown: the file's name in errors.
        allow_duplicates: use the last of duplicate keys, as PyYAML does, and warn.

    Raises:
        ConfigError: the file is missing, not UTF-8 or not YAML, or has a duplicate key, an alias cycle, or
            aliases that repeat each other's content without measure.
    """
    import yaml

    shown = shown or str(path)
    if text is None:
        text = read_text(path, shown=shown)
    source = text if rendered else quote_templates(text)
    loader = _loader_class()(source)
    duplicates: list[str] | None = [] if allow_duplicates else None
    try:
        root = loader.get_single_node()
        if root is not None:
            _check_keys(root, shown, duplicates)
        data = loader.construct_document(root) if root is not None else None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, source, shown) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"invalid YAML: {error}", where=shown, code="yaml.invalid") from None
    except ValueError as error:
        raise ConfigError(f"invalid YAML: {error}", where=shown, code="yaml.invalid") from None
    finally:
        loader.dispose()
    return YamlFile(path, data, source, rendered=rendered, shown=shown, duplicates=duplicates or ())


def read_text(path: Path, *, shown: str | None = None) -> str:
    """Read a UTF-8 file, without a byte order mark.

    Raises:
        ConfigError: the file cannot be read, or is not UTF-8.
    """
    where = shown or str(path)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError("file not found", where=where, code="file.not_found") from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=where, code="file.not_readable") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"is not UTF-8 text ({error.reason} at byte {error.start})", where=where, code="file.wrong_encoding"
        ) from None


def dotted(path: Sequence[PathKey]) -> str:
    """Return `path` for messages: `plugins.tap-shop.pip[0]`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text or "the file"


def kind_of(value: object) -> str:
    """Return a description of a value's type for messages."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "a mapping" if isinstance(value, Mapping) else type(value).__name__


def _loader_class() -> Any:
    """Return libyaml's safe loader if available, without the resolvers that convert text by surprise."""
    global _loader
    if _loader is None:
        import yaml

        base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

        class Loader(base):  # type: ignore[misc]
            yaml_implicit_resolvers = {  # noqa: RUF012
                first: [
                    (tag, pattern)
                    for tag, pattern in resolvers
                    if tag.rpartition(":")[2] not in ("timestamp", "int", "float")
                ]
                for first, resolvers in base.yaml_implicit_resolvers.items()
            }

        Loader.add_implicit_resolver(
            "tag:yaml.org,2002:int",
            re.compile(r"^(?:[-+]?0b[0-1_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$"),
            list("-+0123456789"),
        )
        Loader.add_implicit_resolver(
            "tag:yaml.org,2002:float",
            re.compile(
                r"^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
                r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
            ),
            list("-+0123456789."),
        )
        _loader = Loader
    return _loader


def _check_keys(root: yaml.Node, shown: str, duplicates: list[str] | None) -> None:
    """Convert every key to text; raise errors for duplicate keys, keys that are not scalars, and endless aliases.

    Args:
        duplicates: collects warnings about duplicate keys; None: they are errors.
    """
    import yaml

    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def walk(node: yaml.Node) -> int:
        """Return the number of values in a node, with each alias replaced by what it repeats."""
        if isinstance(node, yaml.ScalarNode):
            return 1
        if len(open_nodes) == _MAX_DEPTH:
            raise ConfigError(
                f"nested more than {_MAX_DEPTH} levels deep",
                where=_at(shown, node.start_mark),
                hint="check the brackets and the indentation around this line",
                code="yaml.invalid",
            )
        if id(node) in open_nodes:
            raise ConfigError(
                "an alias (*) refers to the anchor (&) that contains it",
                where=_at(shown, node.start_mark),
                code="yaml.alias_cycle",
            )
        if id(node) in sizes:
            return sizes[id(node)]
        open_nodes.add(id(node))
        size = 1
        if isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key_node, value_node in node.value:
                if not isinstance(key_node, yaml.ScalarNode):
                    raise ConfigError(
                        "a key must be text, not a list or a mapping",
                        where=_at(shown, key_node.start_mark),
                        hint="put a value that begins with a brace or bracket in quotes",
                        code="yaml.invalid",
                    )
                if key_node.tag != "tag:yaml.org,2002:merge":
                    key_node.tag = "tag:yaml.org,2002:str"
                    key = key_node.value
                    if key in lines:
                        message = f"duplicate key '{key}', first used on line {lines[key] + 1}"
                        where = _at(shown, key_node.start_mark)
                        if duplicates is None:
                            raise ConfigError(message, where=where, hint="keep one of them", code="yaml.duplicate_key")
                        duplicates.append(f"{where}: {message}; the last one is used")
                    lines[key] = key_node.start_mark.line
                size += 1 + walk(value_node)
        elif isinstance(node, yaml.SequenceNode):
            size += sum(map(walk, node.value))
        open_nodes.discard(id(node))
        sizes[id(node)] = size
        return size

    values = walk(root)
    if values > _MAX_VALUES and values > 10 * (root.end_mark.index - root.start_mark.index):
        raise ConfigError(
            f"its aliases (*) repeat each other's content: more than {_MAX_VALUES:,} values",
            where=_at(shown, root.start_mark),
            hint="write the values where they are used",
            code="yaml.too_many_aliases",
        )


def _child(node: yaml.Node, key: PathKey) -> tuple[yaml.Mark, yaml.Node] | None:
    import yaml

    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in reversed(node.value):
            if isinstance(key_node, yaml.ScalarNode) and key_node.value == str(key):
                return key_node.start_mark, value_node
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                parts = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for part in parts:
                    if (inherited := _child(part, key)) is not None:
                        return inherited
    elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and 0 <= key < len(node.value):
        child = node.value[key]
        return child.start_mark, child
    return None


def _at(shown: str, mark: yaml.Mark) -> str:
    return f"{shown}:{mark.line + 1}"


def _syntax_error(error: yaml.MarkedYAMLError, text: str, shown: str) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    where = f"{shown}:{mark.line + 1}" if mark else shown
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    around = "".join(lines[max(0, mark.line - 1) : mark.line + 1]) if mark else ""
    problem = (error.problem or "not YAML").strip()
    hint = None
    for number, text_line in enumerate(lines, 1):
        indent = text_line[: len(text_line) - len(text_line.lstrip())]
        if "\t" in indent and mark is not None and number in (mark.line, mark.line + 1):
            return ConfigError(
                "tab in the indentation: YAML allows only spaces",
                where=f"{shown}:{number}",
                hint="replace the tab with spaces",
                code="yaml.tab",
            )
    if "{%" in text:
        hint = "`{% … %}` is supported only in block files and io_config.yaml"
    elif "{{" in around:
        hint = "put the value that contains {{ … }} in quotes"
    elif "mapping values are not allowed" in problem:
        hint = "put a value that contains ': ' in quotes, or fix the indentation of this line"
    elif line.count('"') % 2 or line.count("'") % 2:
        hint = "a quote is not closed"
    else:
        hint = "check the indentation and the quotes around this line"
    return ConfigError(f"invalid YAML: {problem}", where=where, hint=hint, code="yaml.invalid")
