"""Checks the templates of a batch pipeline before it runs: in its variables, configuration, SQL and dbt arguments.

What only a run has (`block_output`, the names that SQL gets from its call) is checked by the run. The rendered text is
thrown away: errors contain no values, and secrets that are read are added to the masker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from streamline.errors import ConfigError, StreamlineError
from streamline.execution.batch.run_variables import execution_date
from streamline.extensions import load_object
from streamline.pipeline.kinds import kind_of
from streamline.project.render import Renderer
from streamline.project.yamlfile import PathKey, read_text

if TYPE_CHECKING:
    from jinja2 import nodes

    from streamline.pipeline.model import Block, PipelineModel
    from streamline.project.project import Project

_FUNCTIONS = ("env_var", "variables", "secret", "mage_secret_var")
_ONLY_IN_A_RUN = "block_output"


def check_templates(
    project: Project, model: PipelineModel, runtime: Mapping[str, Any] | None = None, only: str | None = None
) -> None:
    """Check that the pipeline's templates can be rendered.

    Args:
        given: variables of the trigger and of this run: what they override is never rendered.
        only: the one block that will run; by default all are checked.

    Raises:
        ConfigError: an environment variable, secret or variable is not set, or the syntax is wrong; with file and line.
    """
    templates = Templates(project, model, runtime)
    for error in templates.variable_errors():
        raise error
    for block in (*model.blocks.values(), *model.callbacks.values(), *model.conditionals.values()):
        if only in (None, block.uuid):
            templates.check_block(block)


class Templates:
    """The templates of a pipeline.

    Args:
        given: variables of the trigger and of this run.
    """

    def __init__(self, project: Project, model: PipelineModel, runtime: Mapping[str, Any] | None = None) -> None:
        self._project = project
        self._model = model
        self._runtime = dict(runtime or {})
        self._renderer = Renderer(
            project,
            {**project.variables, **model.variables},
            project.secrets,
            names={"execution_date": datetime.now(UTC)},
            runtime=self._runtime,
        )

    def in_variables(self) -> bool:
        """Return whether a variable that is not overridden contains a template."""
        return any(_has_template(value) for name, value in self._model.variables.items() if name not in self._runtime)

    def variable_errors(self) -> Iterator[ConfigError]:
        """Return the errors in the pipeline's variables, one by one."""
        for name, value in self._model.variables.items():
            if name in self._runtime:
                continue
            try:
                rendered = self._rendered(value, ("variables", name))
                if name == "execution_date" and rendered is not _LATER:
                    execution_date(rendered, datetime.now(UTC))
            except StreamlineError as error:
                where = error.where or self._where(("variables", name))
                yield ConfigError(error.message, where=where, hint=error.hint, code=error.code)

    def check_block(self, block: Block) -> None:
        """Check that a block's templates can be rendered.

        Raises:
            ConfigError: one of them cannot; with file and line.
        """
        for key, value in block.configuration.items():
            self._rendered(value, (*block.path, "configuration", key))
        self._check_text(block)

    def _rendered(self, value: Any, path: tuple[PathKey, ...]) -> Any:
        if isinstance(value, dict):
            for key, item in value.items():
                self._rendered(item, (*path, key))
            return _LATER
        if isinstance(value, list):
            for index, item in enumerate(value):
                self._rendered(item, (*path, index))
            return _LATER
        if not _has_template(value):
            return value
        if _ONLY_IN_A_RUN in value:
            self._check_calls(value, lambda line: self._model.yaml.where(path), path)
            return _LATER
        return self._renderer.render(value, self._where, path)

    def _where(self, path: Any) -> str:
        return self._model.yaml.where(path)

    def _check_text(self, block: Block) -> None:
        kind = kind_of(block)
        if kind is None or kind.jinja is None:
            return
        shown = self._project.shown(block.file) if block.file is not None else self._model.where(block.uuid, "content")
        text = read_text(block.file, shown=shown) if block.file is not None else block.content or ""
        text = load_object(kind.jinja)(block, text)
        if not _has_template(text):
            return
        if block.file is None:
            self._check_calls(text, lambda line: shown)
        else:
            self._check_calls(text, lambda line: f"{shown}:{line}")

    def _check_calls(self, text: str, where: Callable[[int], str], path: tuple[PathKey, ...] = ()) -> None:
        """Render the calls in a text that every run makes and that can be made now."""
        from streamline.project.lambdas import parse_template

        tree = parse_template(text, where)
        shadowed = {*self._model.variables, *self._runtime, *_assigned(tree)}
        for name, arguments, line in _sure_calls(tree):
            if name not in shadowed:
                literal = ", ".join(map(repr, arguments))
                self._renderer.render(f"{{{{ {name}({literal}) }}}}", where(line), path)


_LATER: Any = object()


def _has_template(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_template, value.values()))
    if isinstance(value, list):
        return any(map(_has_template, value))
    return isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#"))


def _assigned(tree: nodes.Template) -> set[str]:
    from jinja2 import nodes

    return {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}


def _sure_calls(node: nodes.Node) -> Iterator[tuple[str, list[Any], int]]:
    """Yield calls of our functions with literal arguments that do not depend on data: name, arguments, line."""
    from jinja2 import nodes

    if isinstance(node, nodes.Macro | nodes.CallBlock | nodes.FilterBlock):
        return
    if isinstance(node, nodes.If | nodes.CondExpr):
        yield from _sure_calls(node.test)
        return
    if isinstance(node, nodes.For):
        yield from _sure_calls(node.iter)
        return
    if isinstance(node, nodes.And | nodes.Or):
        yield from _sure_calls(node.left)
        return
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name in _FUNCTIONS:
        plain = [argument.value for argument in node.args if isinstance(argument, nodes.Const)]
        whole = len(plain) == len(node.args) and not node.kwargs and not node.dyn_args and not node.dyn_kwargs
        if whole and plain and isinstance(plain[0], str):
            yield node.node.name, plain, node.lineno
            return
    for child in node.iter_child_nodes():
        yield from _sure_calls(child)
