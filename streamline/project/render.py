"""Render Jinja templates in configuration: each string separately, in a sandbox, after YAML is parsed.

So a secret cannot break the syntax around it, and a string that is a single expression gets the expression's type.
Values are rendered when they are read.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from streamline.errors import ConfigError, StreamlineError
from streamline.project.lambdas import quote_lambdas
from streamline.project.suggest import suggestion
from streamline.project.template_values import InsertedValues
from streamline.project.templates import single_expression
from streamline.project.yamlfile import PathKey, YamlFile, dotted, load_yaml, read_text

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

    from streamline.project.secrets import Secrets

Where = Callable[[Sequence[PathKey]], str] | str | None
BlockOutput = Callable[[str], Any]

_UNSET: Any = object()
_MARKS = ("{{", "{%", "{#")
_DEFERRED = re.compile("\ue000unset:(.*?)\ue001")
# Most templates are a single call with literals, which needs no Jinja: its import is slow.
_LITERAL = r"""'[^'\\]*'|"[^"\\]*"|-?\d{1,18}|[Tt]rue|[Ff]alse|[Nn]one"""
_PLAIN_CALL = re.compile(rf"(env_var|variables|secret)\(\s*({_LITERAL})\s*(?:,\s*({_LITERAL})\s*)?\)")


class ProjectFolder(Protocol):
    """The part of a `Project` that rendering uses."""

    root: Path
    mage: bool

    @property
    def secrets(self) -> Secrets: ...

    def shown(self, path: Path) -> str: ...


class Renderer:
    """Renders strings over `env_var`, `variables`, `secret` and `block_output`.

    Args:
        project: resolves file names in errors.
        variables: the values of `variables('x')`; values that are templates are rendered when used.
        secrets: the values of `secret('x')`.
        block_output: returns a block's output by its uuid; None: there are no outputs yet.
        names: more names for expressions, such as `execution_date`.
        runtime: runtime variables: they override `variables`, and are never rendered (they may come from outside, and
            a template in them could read secrets).
        filters: more filters for expressions.
    """

    def __init__(
        self,
        project: ProjectFolder | None,
        variables: Mapping[str, Any] | None = None,
        secrets: Secrets | None = None,
        block_output: BlockOutput | None = None,
        *,
        names: Mapping[str, Any] | None = None,
        runtime: Mapping[str, Any] | None = None,
        filters: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self.project = project
        self._final = frozenset(runtime or ())
        self.variables = {**(variables or {}), **(runtime or {})}
        self.secrets = secrets if secrets is not None or project is None else project.secrets
        self._block_output = block_output
        self._names = dict(names or {})
        self._filters = filters or {}
        self._environment: SandboxedEnvironment | None = None
        self._rendering: list[str] = []
        self._defer_unset = False

    def load(self, path: Path, *, whole: bool | None = None) -> YamlFile:
        """Read a YAML file. If it contains `{%`, its text is rendered first.

        Args:
            path: the file.
            whole: render the text as a whole; None: only if it contains `{%`.

        Raises:
            ConfigError: the file cannot be read, rendered or parsed.
        """
        shown = self.project.shown(path) if self.project is not None else str(path)
        mage = self.project is not None and self.project.mage
        text = read_text(path, shown=shown)
        if whole is None:
            whole = "{%" in text
        if not whole:
            return load_yaml(path, text=text, shown=shown, allow_duplicates=mage)
        inserted = InsertedValues()
        rendered = self.render_text(text, where=shown, inserted=inserted)
        file = load_yaml(path, text=rendered, rendered=True, shown=shown, allow_duplicates=mage)
        inserted.put_back(file)
        return file

    def part(self, file: YamlFile, *path: PathKey, default: Any = None) -> Any:
        """Return the rendered value at `path` of a file; `default` if it is missing."""
        value = file.data
        for key in path:
            in_mapping = isinstance(value, dict) and key in value
            if not in_mapping and not (isinstance(value, list) and isinstance(key, int) and key < len(value)):
                return default
            value = value[key]
        return value if file.rendered else self.render(value, where=file.where, path=path)

    def render(self, value: Any, where: Where = None, path: Sequence[PathKey] = ()) -> Any:
        """Return `value` with every string in it rendered, including mapping keys.

        Args:
            value: dicts, lists and scalars of a YAML file.
            where: `file:line`, or a function that returns it for a path; for errors.
            path: the path of `value` in its file; for errors.

        Raises:
            ConfigError: a template uses an unset variable or an unknown name, or has a syntax error; the error names
                file, line and key.
        """
        if isinstance(value, str):
            return self._string(value, where, path) if _is_template(value) else value
        if isinstance(value, dict):
            return {self._key(key, where, path): self.render(item, where, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.render(item, where, (*path, index)) for index, item in enumerate(value)]
        return value

    def render_text(
        self,
        text: str,
        where: str | None = None,
        *,
        defer_unset: bool = False,
        names: Mapping[str, Any] | None = None,
        inserted: InsertedValues | None = None,
    ) -> str:
        """Render a whole file's text (io_config.yaml, SQL, files with `{%`).

        Args:
            text: the file's text.
            where: the file's name in errors.
            defer_unset: an unset `env_var` leaves a placeholder, for which `check_deferred` raises the error.
            names: more names for the expressions; they override the renderer's.
            inserted: keeps inserted values out of the text.

        Raises:
            ConfigError: as `render`, with the line in the template if it is known.
        """
        if not _is_template(text):
            return text
        self._defer_unset = defer_unset
        try:
            context = {**self._context(), **(names or {})}
            template = quote_lambdas(text)
            if inserted is None:
                return self._jinja().from_string(template).render(context)
            return self._jinja().overlay(finalize=inserted.keep).from_string(template).render(inserted.watched(context))
        except Exception as error:
            line = _line_in_template(error)
            raise self._explain(
                error, text, where if where is None or line is None else f"{where}:{line}", ()
            ) from error
        finally:
            self._defer_unset = False

    def _key(self, key: Any, where: Where, path: Sequence[PathKey]) -> Any:
        if not isinstance(key, str) or not _is_template(key):
            return key
        rendered = self._string(key, where, (*path, key))
        if not isinstance(rendered, str):
            raise ConfigError(
                f"the key {key!r} renders to {rendered!r}, which is not text",
                where=_place(where, path),
                code="template.wrong_type",
            )
        return rendered

    def _string(self, text: str, where: Where, path: Sequence[PathKey]) -> Any:
        text = quote_lambdas(text)
        expression = single_expression(text)
        try:
            if expression is None:
                return self._jinja().from_string(text).render(self._context())
            call = _PLAIN_CALL.fullmatch(expression)
            if call is not None:
                return self._plain_call(call)
            return self._expression(expression)
        except Exception as error:
            raise self._explain(error, text, where, path) from error

    def _expression(self, expression: str) -> Any:
        result = self._jinja().compile_expression(expression, undefined_to_none=False)(self._context())
        if type(result).__name__.endswith("Undefined"):
            str(result)  # raises an error that names what is undefined
        return result

    def _plain_call(self, call: re.Match[str]) -> Any:
        function: Callable[..., Any] = self._context()[call[1]]
        arguments = [_literal(group) for group in call.groups()[1:] if group is not None]
        return function(*arguments)

    def _context(self) -> dict[str, Any]:
        return {
            **self._names,
            "env_var": self._env_var,
            "variables": self._variable,
            "secret": self._secret,
            "mage_secret_var": self._secret,
            "block_output": self._output,
            "json_value": _json_value,
        }

    def _env_var(self, name: str, default: Any = _UNSET) -> Any:
        _check_name("env_var", name)
        value = os.environ.get(name)
        if value is not None:
            return value
        if default is not _UNSET:
            return default
        if self._defer_unset:
            return f"\ue000unset:{name}\ue001"
        raise ConfigError(
            f"the environment variable {name} is not set",
            hint=f"set {name}, or give a default: env_var('{name}', '…')",
            code="environment_variable.not_set",
        )

    def _variable(self, name: str, default: Any = _UNSET) -> Any:
        _check_name("variables", name)
        if name not in self.variables:
            if default is not _UNSET:
                return default
            raise ConfigError(
                f"variable '{name}' not found",
                hint=f"set it under `variables:` in metadata.yaml, or with --runtime-vars {name}=…; "
                + suggestion(name, self.variables, what="variables"),
                code="variable.not_found",
            )
        value = self.variables[name]
        if name in self._final or not isinstance(value, str | dict | list):
            return value
        if name in self._rendering:
            raise ConfigError(
                f"the variable '{name}' refers to itself: {' → '.join([*self._rendering, name])}", code="variable.cycle"
            )
        self._rendering.append(name)
        try:
            return self.render(value, f"variable {name}")
        finally:
            self._rendering.pop()

    def _secret(self, name: str, default: Any = _UNSET) -> Any:
        _check_name("secret", name)
        if self.secrets is None:
            raise ConfigError(
                f"secret '{name}' not found: secrets exist only inside a project", code="secret.not_found"
            )
        if default is not _UNSET:
            secret = self.secrets.find(name)
            return default if secret is None else secret
        return self.secrets.get(name)

    def _output(self, uuid: str, parse: str | Callable[..., Any] | None = None) -> Any:
        _check_name("block_output", uuid)
        if self._block_output is None:
            raise ConfigError(
                f"block_output('{uuid}') cannot be used here: no block ran before",
                hint="use it in blocks that have this block upstream",
                code="template.no_block_output",
            )
        value = self._block_output(uuid)
        if parse is None:
            return value
        function, wants_variables = parse_function(parse)
        return function(value, self.variables) if wants_variables else function(value)

    def _jinja(self) -> SandboxedEnvironment:
        if self._environment is None:
            from jinja2 import StrictUndefined
            from jinja2.sandbox import ImmutableSandboxedEnvironment

            self._environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
            self._environment.filters.update(self._filters)
        return self._environment

    def _explain(self, error: Exception, text: str, where: Where, path: Sequence[PathKey]) -> StreamlineError:
        """Return the error to show: with file, line, key and hint, and without values."""
        place = _place(where, path)
        key = f"{dotted(path)}: " if path else ""
        if isinstance(error, StreamlineError):
            if error.where is not None and error.where.startswith("variable "):
                return type(error)(
                    f"{key}{error.where}: {error.message}", where=place, hint=error.hint, code=error.code
                )
            return type(error)(f"{key}{error.message}", where=error.where or place, hint=error.hint, code=error.code)
        from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError

        if isinstance(error, TemplateSyntaxError):
            if not path and place is not None:
                place = f"{place}:{error.lineno}"
            message = f"template syntax error: {error.message}"
            hint = "check the quotes and brackets inside {{ … }}"
        elif isinstance(error, UndefinedError):
            message = str(error.message)
            hint = "templates can use env_var('X'), variables('x'), secret('x') and block_output('uuid')"
        elif isinstance(error, SecurityError):
            message, hint = f"not allowed in a template: {error}", _shown_template(text)
        else:
            message, hint = f"{type(error).__name__} in the template: {error}", _shown_template(text)
        if self.secrets is not None:
            message = self.secrets.masker.mask(message)
        message = f"{key}{message}"
        if isinstance(error, TemplateSyntaxError):
            return ConfigError(message, where=place, hint=hint, code="template.syntax")
        return ConfigError(message, where=place, hint=hint, code="template.failed")


def check_deferred(value: Any, where: str | None = None) -> Any:
    """Return `value`, or raise the error for an unset `env_var` that was deferred while the file was rendered.

    Raises:
        ConfigError: `value` contains the placeholder of an unset variable.
    """
    if isinstance(value, str) and (unset := _DEFERRED.search(value)):
        name = unset[1]
        raise ConfigError(
            f"the environment variable {name} is not set",
            where=where,
            hint=f"set {name}, or give a default: env_var('{name}', '…')",
            code="environment_variable.not_set",
        )
    return value


def _check_name(function: str, name: object) -> None:
    """Check that a name is text: without quotes, Jinja reads it as a variable.

    Raises:
        ConfigError: the name is not text.
    """
    if isinstance(name, str):
        return
    undefined = getattr(name, "_undefined_name", None)
    if undefined is None:
        raise ConfigError(
            f"{function}() takes a name in quotes, not {type(name).__name__}", code="template.invalid_name"
        )
    raise ConfigError(
        f"{function}({undefined}): the name has no quotes",
        hint=f"put quotes around {undefined}: {function}('{undefined}')",
        code="template.invalid_name",
    )


def _is_template(text: str) -> bool:
    return "{" in text and any(mark in text for mark in _MARKS)


def _literal(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    return words[text.lower()] if text.lower() in words else ast.literal_eval(text)


def _place(where: Where, path: Sequence[PathKey]) -> str | None:
    return where(path) if callable(where) else where


def _line_in_template(error: Exception) -> int | None:
    """Return the line in the template where an error was raised, from Jinja's frames in the traceback."""
    if hasattr(error, "lineno"):  # a syntax error has its own line
        return None
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _shown_template(text: str) -> str:
    line = " ".join(text.split())
    return f"in: {line if len(line) <= 120 else line[:117] + '…'}"


def _json_value(text: str, key: str) -> Any:
    import json

    return json.loads(text)[key]


def parse_function(parse: str | Callable[..., Any]) -> tuple[Callable[..., Any], bool]:
    """Return the function of `parse=`, and whether it takes the variables as its second argument.

    Raises:
        ConfigError: `parse=` is not the text of a lambda with one or two arguments.
    """
    hint = "parse= takes the text of a function, such as parse='lambda data: data[\"host\"]'"
    if not isinstance(parse, str):
        raise ConfigError("parse= must be text", hint=hint, code="template.invalid_parse")
    try:
        tree = ast.parse(parse.strip(), mode="eval")
    except SyntaxError as error:
        raise ConfigError(f"parse= is not Python: {error.msg}", hint=hint, code="template.invalid_parse") from None
    body = tree.body
    if not isinstance(body, ast.Lambda) or not 1 <= len(body.args.posonlyargs + body.args.args) <= 2:
        raise ConfigError(
            "parse= must be a lambda of one argument (data) or two (data, variables)",
            hint=hint,
            code="template.invalid_parse",
        )
    # This is the project's own code, like block files; the sandbox is for expressions that Jinja evaluates.
    function: Callable[..., Any] = eval(compile(tree, "<parse>", "eval"), {})
    return function, len(body.args.posonlyargs + body.args.args) == 2
