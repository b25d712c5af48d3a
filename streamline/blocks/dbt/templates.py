"""Templates for new dbt blocks, and a small dbt project for the first one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from streamline.errors import ConfigError
from streamline.pipeline.edit import NewBlock
from streamline.project.suggest import suggestion
from streamline.project.yamlfile import load_yaml

if TYPE_CHECKING:
    from streamline.project.project import Project

_PROJECT = """\
name: {name}
version: "1.0"
profile: {name}
model-paths: [models]
"""
_PROFILES = """\
# Where dbt writes. A relative path starts at the project's folder.
{name}:
  target: dev
  outputs:
    dev: {{type: duckdb, path: dbt.duckdb}}
"""
_TESTS = """\
models:
  - name: {model}
    columns:
      - name: id
        data_tests: [not_null]
"""
_ARGUMENTS = """\
# dbt's arguments. The command is in the pipeline's metadata.yaml. Without --select, the whole dbt project is meant.
--select {model}
"""


def dbt_block(project: Project, name: str, language: str, existing: Sequence[Path], chosen: str | None) -> NewBlock:
    """Return a new dbt block: dbt's arguments (`yaml`), or one model (`sql`).

    Args:
        chosen: the dbt project to use, by path or folder name; required if there are several.

    Raises:
        ConfigError: the language or the dbt project is unknown, or there are several dbt projects.
    """
    if language not in ("yaml", "sql"):
        raise ConfigError(
            f"a dbt block cannot be written in {language}",
            hint="use --language yaml (dbt's arguments) or --language sql (one model)",
            code="block.wrong_language",
        )
    others: dict[str, str] = {}
    if existing or chosen:
        folder = project.shown(_one_of(project, existing, chosen))
    else:
        word = re.sub(r"\W+", "_", project.name.lower()).strip("_") or "project"
        word = word if word[0].isalpha() else f"dbt_{word}"
        folder = f"dbt/{word}"
        others = {
            f"{folder}/dbt_project.yml": _PROJECT.format(name=word),
            f"{folder}/profiles.yml": _PROFILES.format(name=word),
        }
    model = re.sub(r"\W+", "_", name)
    models = f"{folder}/{'models' if others else _models_folder(project, folder)}"
    if language == "sql":
        file = f"{models}/{model}.sql"
        return NewBlock(
            uuid=name,
            type="dbt",
            language="sql",
            text=_model,
            configuration={"file_path": file},
            file=file,
            others=others,
        )
    # A new model, because existing ones may depend on the outputs of other blocks.
    if not any((project.root / folder).rglob(f"{model}.sql")):
        others[f"{models}/{model}.sql"] = ""
    if f"{folder}/dbt_project.yml" in others:
        others[f"{models}/{model}.yml"] = _TESTS.format(model=model)
    return NewBlock(
        uuid=name,
        type="dbt",
        language="yaml",
        text=_ARGUMENTS.format(model=model),
        configuration={"dbt": {"command": "build"}, "dbt_project_name": folder.removeprefix("dbt/")},
        others={path: text or _model for path, text in others.items()},
    )


def _model(upstream: Sequence[str]) -> str:
    if not upstream:
        return "select 1 as id\n"
    return f"select *\nfrom {{{{ source('streamline', '{upstream[0]}') }}}}\n"


def _models_folder(project: Project, folder: str) -> str:
    """Return the models folder of a dbt project, relative to it."""
    path = project.root / folder / "dbt_project.yml"
    paths = load_yaml(path, shown=project.shown(path)).mapping().get("model-paths")
    return str(paths[0]) if isinstance(paths, list) and paths else "models"


def _one_of(project: Project, existing: Sequence[Path], chosen: str | None) -> Path:
    names = {project.shown(folder): folder for folder in existing}
    if chosen is None and len(existing) == 1:
        return existing[0]
    for shown, folder in names.items():
        if chosen in (shown, shown.removeprefix("dbt/")):
            return folder
    if chosen is None:
        raise ConfigError(
            "there are several dbt projects",
            hint=f"add --dbt-project: one of {', '.join(names)}",
            code="dbt.project_ambiguous",
        )

    raise ConfigError(
        f"there is no dbt project '{chosen}'",
        hint=suggestion(chosen, names, what="dbt projects under dbt/"),
        code="dbt.project_not_found",
    )
