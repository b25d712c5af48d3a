"""The decorated functions of sources and destinations in Python: which a file has, found without running it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from streamline.blocks.call import shown_block
from streamline.blocks.python.check import FunctionNode, block_tree, defined_functions, first_line, imported_modules
from streamline.blocks.python.file import imports_of
from streamline.blocks.python.function import decorator_name
from streamline.errors import ConfigError
from streamline.pipeline.kinds import ConnectorRole
from streamline.project.suggest import suggestion

if TYPE_CHECKING:
    from streamline.pipeline.model import Block
    from streamline.project.project import Project

SOURCE = "data_integration_source"
DESTINATION = "data_integration_destination"
CONFIG = "data_integration_config"
SELECTED_STREAMS = "data_integration_selected_streams"
CATALOG = "data_integration_catalog"

NAMED: Mapping[ConnectorRole, str] = {"source": SOURCE, "destination": DESTINATION}
"""The decorator of the function that names the source or destination."""

ARGUMENTS: Mapping[str, Mapping[str, bool]] = {
    SOURCE: {},
    DESTINATION: {},
    CONFIG: {},
    SELECTED_STREAMS: {"discover_streams": False},
    CATALOG: {"discover": False, "select_all": True},
}
"""The arguments of each decorator, with their defaults. All of them are for sources."""

KEYWORDS = frozenset(
    {*NAMED, "config", "selected_streams", "discover_streams_func", "catalog", "discover_func"},
)
"""The keyword arguments of the functions: parameters of these names take no output."""

_DF = re.compile(r"df_\d+")
_LATER: Any = object()


class DecoratedNode(msgspec.Struct, frozen=True):
    """A decorated function in a file. `sure`: loading the file always defines it."""

    decorator: str
    function: FunctionNode
    expression: ast.expr
    sure: bool


def decorated_nodes(tree: ast.Module) -> Iterator[DecoratedNode]:
    """Yield the functions that are decorated for sources and destinations, in the file's order."""
    meant = {name: full.rpartition(".")[2] for name, full in imports_of(tree).items()}
    for function, sure in defined_functions(tree.body):
        for expression in function.decorator_list:
            name = decorator_name(expression)
            if meant.get(name, name) in ARGUMENTS:
                yield DecoratedNode(meant.get(name, name), function, expression, sure)


def check_functions(project: Project, block: Block, role: ConnectorRole) -> tuple[set[str], tuple[str, str] | None]:
    """Check the file of a source or destination block.

    Returns:
        The modules that it imports when it is loaded; and the name of the source or destination, if the file says it
        without computing it, with its place.

    Raises:
        ConfigError: the file cannot be read or is not Python; a required function is missing, or there are several; a
            function is for the other role; a decorator has a wrong argument. `where` is `file:line`.
    """
    tree = block_tree(project, block)
    shown = shown_block(project, block)
    nodes = list(decorated_nodes(tree))
    _check_role(block, role, nodes, shown)
    for decorator in ARGUMENTS:
        found = [node for node in nodes if node.decorator == decorator]
        several = [node.function for node in found if node.sure]
        if len(several) > 1 and not project.mage:
            lines = " and ".join(f"{function.name} (line {first_line(function)})" for function in several)
            raise ConfigError(
                f"more than one function in this file is decorated with @{decorator}: {lines}",
                where=f"{shown}:{first_line(several[1])}",
                hint="leave the decorator on one of them",
                code="block.function_ambiguous",
            )
        if not found and decorator in (NAMED[role], CONFIG) and not _may_come_otherwise(project, tree):
            raise missing_function(decorator, role, shown)
    for node in nodes:
        _check_call(node, role, shown)
    return imported_modules(project, tree), _constant_name(nodes, role, shown)


def reads_arguments(tree: ast.Module, upstream: str, role: ConnectorRole) -> bool:
    """Return whether the decorated functions of a source or destination may use the output of an upstream block.

    Functions with `*args` that they do not read are usual: the arguments are there for those who want them.
    """
    if any(isinstance(node, ast.Name) and (node.id == upstream or _DF.fullmatch(node.id)) for node in ast.walk(tree)):
        return True  # a name that stands for the output
    nodes = list(decorated_nodes(tree))
    if not {NAMED[role], CONFIG} <= {node.decorator for node in nodes}:
        return True  # the others are imported
    for function in {node.function for node in nodes}:
        arguments = function.args
        if {argument.arg for argument in (*arguments.posonlyargs, *arguments.args)} - KEYWORDS:
            return True
        if any(argument.arg == upstream for argument in arguments.kwonlyargs):
            return True
        spread = arguments.vararg.arg if arguments.vararg is not None else None
        if any(isinstance(node, ast.Name) and node.id == spread for node in ast.walk(function)):
            return True
    return False


def missing_function(decorator: str, role: ConnectorRole, where: str) -> ConfigError:
    """Return the error for a required function that a file does not have."""
    what = "config" if decorator == CONFIG else "name"
    returns = "a dict" if decorator == CONFIG else f"the {role}'s name"
    return ConfigError(
        f"no function in this file is decorated with @{decorator}: the {role} has no {what}",
        where=where,
        hint=f"write a function that returns {returns}, and @{decorator} above it",
        code="block.function_missing",
    )


def decorator_arguments(
    decorator: str, positional: Sequence[Any], keywords: Mapping[str, Any], role: ConnectorRole, where: str
) -> dict[str, bool]:
    """Return the arguments of a decorator, with the defaults of those that are not given.

    Raises:
        ConfigError: an unknown argument, one that is neither True nor False, or one that destinations do not have.
    """
    defaults = ARGUMENTS[decorator]
    if len(positional) > len(defaults):
        raise ConfigError(
            f"@{decorator} takes {len(defaults) or 'no'} arguments",
            where=where,
            hint=f"its arguments: {', '.join(defaults)}" if defaults else f"write @{decorator}",
            code="setting.invalid",
        )
    given = {**dict(zip(defaults, positional, strict=False)), **keywords}
    for name, value in given.items():
        if name not in defaults:
            raise ConfigError(
                f"@{decorator} has no argument '{name}'",
                where=where,
                hint=suggestion(name, defaults, what="its arguments"),
                code="setting.unknown",
            )
        if value is not _LATER and not isinstance(value, bool):
            raise ConfigError(
                f"@{decorator}: {name} must be True or False, not {value!r}", where=where, code="setting.invalid"
            )
        if role == "destination" and value is not _LATER and value != defaults[name]:
            raise ConfigError(
                f"@{decorator}: {name} is an argument for sources",
                where=where,
                hint="remove it: a destination exports the outputs of its upstream blocks",
                code="setting.invalid",
            )
    return {**defaults, **given}


def _check_role(block: Block, role: ConnectorRole, nodes: Iterable[DecoratedNode], shown: str) -> None:
    for node in nodes:
        other = next((name for name, decorator in NAMED.items() if decorator == node.decorator and name != role), None)
        if other is not None:
            raise ConfigError(
                f"a {block.type} is a {role}, and {node.function.name}() is decorated with @{node.decorator}",
                where=f"{shown}:{first_line(node.function)}",
                hint=f"write @{NAMED[role]}, or make the block a "
                f"{'data_exporter' if other == 'destination' else 'data_loader'}",
                code="block.wrong_kind",
            )


def _check_call(node: DecoratedNode, role: ConnectorRole, shown: str) -> None:
    call = node.expression
    if not isinstance(call, ast.Call):
        return
    if any(isinstance(value, ast.Starred) for value in call.args) or any(word.arg is None for word in call.keywords):
        return  # known when the file runs
    positional = [_constant(value) for value in call.args]
    keywords = {word.arg or "": _constant(word.value) for word in call.keywords}
    decorator_arguments(node.decorator, positional, keywords, role, f"{shown}:{call.lineno}")


def _constant(node: ast.expr) -> Any:
    return node.value if isinstance(node, ast.Constant) else _LATER


def _may_come_otherwise(project: Project, tree: ast.Module) -> bool:
    """Return whether the file could get a decorated function in a way that only running it tells."""
    own = {path.stem for path in project.root.iterdir() if path.suffix == ".py" or path.is_dir()} | {project.root.name}
    expressions = {id(part) for function in ast.walk(tree) for part in _decorators(function)}
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = {alias.asname or alias.name for alias in node.names}
            of_project = node.level > 0 or (node.module or "").partition(".")[0] in own
            # A name that the file reads is a helper's.
            if "*" in names or (of_project and names - read):
                return True
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if name in ARGUMENTS and id(node) not in expressions:
            return True  # `config = data_integration_config(make(…))`
    return False


def _decorators(node: ast.AST) -> list[ast.AST]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return []
    return [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]


def _constant_name(nodes: Iterable[DecoratedNode], role: ConnectorRole, shown: str) -> tuple[str, str] | None:
    for node in nodes:
        if node.decorator == NAMED[role] and node.sure:
            returned = list(_returns(node.function.body))
            value = returned[0].value if len(returned) == 1 else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                return value.value, f"{shown}:{value.lineno}"
    return None


def _returns(body: Iterable[ast.AST]) -> Iterator[ast.Return]:
    for node in body:
        if isinstance(node, ast.Return):
            yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _returns(ast.iter_child_nodes(node))
