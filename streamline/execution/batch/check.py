"""Checks a batch pipeline without running it: its blocks' files, what they import, and the databases that they name."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamline.errors import ConfigError, StreamlineError
from streamline.execution.batch.plan import check_block, make_plan
from streamline.execution.batch.templates import Templates
from streamline.execution.checked import Checked, Problem, Report
from streamline.pipeline.block_settings import block_settings
from streamline.project.project import Project
from streamline.project.render import Renderer
from streamline.project.suggest import almost
from streamline.project.yamlfile import PathKey, read_text

if TYPE_CHECKING:
    from streamline.blocks.sql.settings import Profiles
    from streamline.pipeline.model import Block, PipelineModel

ALIAS = "mage_ai"
_ALIKE = 0.85
"""How like a known key an unknown one of a profile must be to be taken for it: it may be its author's own."""

# Asks an interpreter which of the modules it was given are nowhere; the paths in front are the project's. A name with
# a colon is one inside a module of the alias, which says itself what it does not have.
_FIND = """\
import importlib, importlib.util, sys
import streamline
count = int(sys.argv[1])
sys.path[:0] = sys.argv[2:2 + count]
for name in sys.argv[2 + count:]:
    if ":" in name:
        module, _, wanted = name.partition(":")
        try:
            if importlib.util.find_spec(module.partition(".")[0]).origin == "streamline":
                found = importlib.import_module(module)
                wanted and getattr(found, wanted)
        except (ImportError, AttributeError) as error:
            print(name, str(error).replace("\\n", " "), sep="\\t")
        continue
    try:
        found = importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        found = name in sys.modules
    if not found:
        print(name, "", sep="\\t")
"""
_PARSE_R = (
    "tryCatch(invisible(parse(commandArgs(TRUE)[1], keep.source = FALSE, encoding = 'UTF-8')), "
    "error = function(e) { cat(conditionMessage(e)); quit(status = 3) })"
)


def check_batch(
    project: Project,
    model: PipelineModel,
    report: Report,
    notify: Callable[[str], None],
    given: Mapping[str, Any] | None = None,
) -> list[Checked]:
    """Check every block, then what they need, then the plan. `report` is called with each result as it comes.

    Args:
        notify: is told, in a sentence, what takes long.
        given: variables that a run would be given.
    """
    return _Check(project, model, report, notify, dict(given or {})).run()


class _Check:
    def __init__(
        self,
        project: Project,
        model: PipelineModel,
        report: Report,
        notify: Callable[[str], None],
        given: dict[str, Any],
    ) -> None:
        self._project = project
        self._given = given
        self._templates = Templates(project, model, given)
        self._model = model
        self._report = report
        self._notify = notify
        self._done: list[Checked] = []
        self._blocks = [model.blocks[uuid] for uuid in model.order()]
        self._blocks += [*model.conditionals.values(), *model.callbacks.values()]
        self._isolated = {uuid for uuid, one in model.blocks.items() if block_settings(model, one).isolated}
        self._own_python: str | None = None
        self._absent: dict[str, dict[str, str]] = {}

    def run(self) -> list[Checked]:
        if self._isolated:
            self._own_python = self._environment()
        renderer = self._renderer({})
        self._variables()
        for block in self._blocks:
            self._block(block, renderer)
        self._profiles()
        if not any(each.problem == "configuration" for each in self._done):
            self._plan()
        return self._done

    def _renderer(self, more: dict[str, object]) -> Renderer:
        variables = {**self._project.variables, **self._model.variables, **more}
        return Renderer(self._project, variables, self._project.secrets, runtime=self._given)

    def _variables(self) -> None:
        wrong = list(self._templates.wrong_variables())
        for error in wrong:
            self._failed("variables", None, error)
        if not wrong and self._templates.in_variables():
            self._good("variables", None, "their templates can be rendered")

    def _environment(self) -> str | None:
        """The interpreter of the pipeline's isolated blocks; None if it cannot be made."""
        from streamline.pipeline.isolated import REQUIREMENTS_FILE, isolated_python

        shown = self._project.shown(self._model.path / REQUIREMENTS_FILE)
        try:
            found = isolated_python(self._project, self._model, self._notify)
        except StreamlineError as error:
            self._failed("environment", None, error)
            return None
        where = "Streamline's own environment has all of it" if found == sys.executable else "it is there"
        self._good("environment", None, f"{shown}: {where}")
        return found

    def _block(self, block: Block, renderer: Renderer) -> None:
        """A block's code, as far as that goes without running it; its configuration's templates; its imports."""
        python = self._python_of(block)
        try:
            check_block(self._project, self._model, block, renderer)
            if block.language == "r" and block.type != "dbt":
                self._parse_r(block)
            self._templates.check_block(block)
            missing = self._missing_imports(block, python)
        except StreamlineError as error:
            self._failed(block.type, block.uuid, error)
            return
        if missing:
            name, line, why = missing[0]
            where = f"{self._shown(block)}:{line}"
            isolated = python is not None and python != sys.executable
            hint = (
                f"add it to {self._project.shown(self._model.path / 'requirements.txt')}"
                if isolated
                else f"pip install {name}, if that is its package's name; or put it into requirements.txt and run the "
                "block isolated"
            )
            absent = ConfigError(
                why or f"imports '{name}', which is not installed", where=where, hint=None if why else hint
            )
            self._failed(block.type, block.uuid, absent)
            return
        self._good(block.type, block.uuid, f"{self._shown(block)} {_said(block, imports=python is not None)}")

    def _parse_r(self, block: Block) -> None:
        """Have R itself read the file, which runs nothing in it."""
        from streamline.blocks.r import rscript

        shown = self._shown(block)
        with tempfile.TemporaryDirectory() as folder:
            file = block.file
            if file is None:
                file = Path(folder) / "block.R"
                file.write_text(block.content or "", "utf-8")
            command = [rscript(shown), "--vanilla", "-e", _PARSE_R, str(file)]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 3:  # a broken installation is found out about in other ways
            return
        said = done.stdout.partition("\n")[0].removeprefix(f"{file}:")
        line, _, what = said.partition(":")
        where = f"{shown}:{line}" if block.file is not None and line.isdecimal() else shown
        what = what.partition(":")[2].strip() if line.isdecimal() else said
        raise ConfigError(f"this is no R: {what}", where=where, hint="mend it there, or in the line above")

    def _missing_imports(self, block: Block, python: str | None) -> list[tuple[str, int, str]]:
        """Modules that the file imports come what may and that are nowhere: with their lines, and why if known."""
        if python is None:
            return []
        if python not in self._absent:
            users = [one for one in self._blocks if self._python_of(one) == python]
            names = {name for one in users for name in _imports(one)}
            self._absent[python] = _not_found(python, self._project.root, sorted(names))
        absent = self._absent[python]
        return [(name, line, absent[name]) for name, line in _imports(block).items() if name in absent]

    def _python_of(self, block: Block) -> str | None:
        return self._own_python if block.uuid in self._isolated else sys.executable

    def _profiles(self) -> None:
        """Connect once to each database that SQL blocks name."""
        from streamline.blocks.sql.settings import Profiles

        renderer = self._renderer({"execution_date": ""})
        profiles = Profiles(self._project, renderer)
        seen: set[tuple[object, ...]] = set()
        for block in self._blocks:
            # What is wrong with a block has been said; what only a run can render is not known here.
            if any(each.block == block.uuid and not each.ok for each in self._done):
                continue
            if block.language == "sql" and block.type != "dbt" and block.configuration.get("data_provider"):
                self._database(block, renderer, profiles, seen)

    def _database(self, block: Block, renderer: Renderer, profiles: Profiles, seen: set[tuple[object, ...]]) -> None:
        from streamline.blocks.sql.settings import KEYS, read_settings

        where = self._model.where(block.uuid, "configuration", "data_provider")
        name, misspelt = _without_password(str(block.configuration["data_provider"])), ""
        try:
            configuration = {
                key: renderer.render(value, functools.partial(self._place, block))
                for key, value in block.configuration.items()
                if key in KEYS and not _needs_run(value)
            }
            settings = read_settings(configuration, where)
            url = settings.provider if settings.provider is not None and "://" in settings.provider else None
            name = _without_password(url) if url else f"{settings.provider}, profile {settings.profile}"
            # Two profiles may reach one database as different users.
            place = (settings.profile, *profiles.place(settings, where))
            if place in seen or profiles.in_memory(settings, where):
                return
            seen.add(place)
            misspelt = _misspelt(profiles.get(settings, where))
            file = str(place[-1]) if settings.kind in ("duckdb", "sqlite") else None
            if file is not None and "://" not in file and ":" not in file and not self._project.path(file).exists():
                self._good("profile", None, f"{file} is not there yet; it is made when it is first used", name)
                return
            with profiles.open(settings, where) as database:
                database.query("select 1")
        except ConfigError as error:
            self._failed("profile", None, error, plugin=name)
        except StreamlineError as error:
            error.hint = "; ".join(filter(None, (misspelt, error.hint))) or None
            self._failed("profile", None, error, "connection", plugin=name)
        else:
            self._good("profile", None, "; ".join(filter(None, ("it answers", misspelt))), name)

    def _place(self, block: Block, path: Sequence[PathKey]) -> str:
        return self._model.where(block.uuid, "configuration", *path)

    def _plan(self) -> None:
        try:
            plan = make_plan(self._project, self._model, self._given)
        except StreamlineError as error:
            self._failed("plan", None, error)
            return
        number = len(plan.blocks)
        self._good("plan", None, f"{number:,} block{'s' if number != 1 else ''} can run")

    # -- results

    def _shown(self, block: Block) -> str:
        return self._project.shown(block.file) if block.file is not None else self._model.where(block.uuid, "content")

    def _good(self, what: str, block: str | None, detail: str, plugin: str | None = None) -> None:
        self._add(Checked(what=what, block=block, detail=detail, plugin=plugin))

    def _failed(
        self,
        what: str,
        block: str | None,
        error: StreamlineError,
        problem: Problem = "configuration",
        plugin: str | None = None,
    ) -> None:
        mask = self._project.secrets.masker.mask
        self._add(
            Checked(
                what=what,
                block=block,
                plugin=plugin,
                problem=problem,
                detail=mask(error.message),
                where=error.where,
                hint=mask(error.hint) if error.hint else None,
            )
        )

    def _add(self, checked: Checked) -> None:
        self._done.append(checked)
        self._report(checked)


def imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The modules that a file imports whenever it is loaded, with their lines: not those in `if`, `try`, functions."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0], node.lineno


def of_the_alias(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """What a file imports of the modules that stand in for the reference product's: `module:name`, and their lines."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from ((f"{alias.name}:", node.lineno) for alias in node.names if alias.name.startswith(f"{ALIAS}."))
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == ALIAS:
            yield from (
                (f"{node.module}:{'' if alias.name == '*' else alias.name}", node.lineno) for alias in node.names
            )


def _imports(block: Block) -> dict[str, int]:
    """What has to be installed for a block's file, by the first line that needs it; nothing if it is no Python."""
    if block.language != "python" or block.type == "dbt":
        return {}
    source = read_text(block.file) if block.file is not None else block.content or ""
    lines: dict[str, int] = {}
    try:
        tree = ast.parse(source)
        for name, line in (*imported(tree), *of_the_alias(tree)):
            if name not in sys.stdlib_module_names:
                lines.setdefault(name, line)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return lines


def _not_found(python: str, root: Path, names: Sequence[str]) -> dict[str, str]:
    """Those that are not there, and why if that is known."""
    if not names:
        return {}
    # As in a run: the project's folder and the one that it lies in come first.
    paths = [str(root), str(root.parent)]
    command = [python, "-c", _FIND, str(len(paths)), *paths, *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    # An interpreter that cannot even do this is found out about in other ways.
    if done.returncode != 0:
        return {}
    return {name: why for name, _, why in (line.partition("\t") for line in done.stdout.splitlines())}


def _misspelt(profile: Mapping[str, Any]) -> str:
    """What a profile has that is almost a key that is read."""
    from streamline.io.config_keys import ConfigKey

    known = {str(key).casefold(): str(key) for key in ConfigKey}
    near = {key: almost(key, known, _ALIKE) for key in profile if key.casefold() not in known}
    return "; ".join(f"{key} means nothing: did you mean {known[one]}?" for key, one in near.items() if one is not None)


def _without_password(url: str) -> str:
    return re.sub(r"://([^:/@]*):[^/]*@", r"://\1:***@", url)


def _needs_run(value: object) -> bool:
    return isinstance(value, str) and "{{" in value and "block_output" in value


def _said(block: Block, *, imports: bool) -> str:
    if block.type == "dbt":
        return "names a dbt project that is there"
    if block.language == "python":
        installed = ", and what it imports is installed"
        return f"is Python, with its decorated function{installed if imports else ''}"
    return {"sql": "is SQL, and its templates are well formed", "r": "is R, and mentions its function"}.get(
        block.language, "can be read"
    )
