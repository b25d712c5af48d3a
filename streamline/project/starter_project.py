"""Create a project with example pipelines."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from streamline.errors import ConfigError
from streamline.project.project import PROJECT_FILE, project_file
from streamline.project.yamledit import to_yaml

TEMPLATE = Path(__file__).with_name("starter")
PIPELINES = {
    "example": "a CSV file into a JSONL file, through a tap and a target",
    "report": "a batch of Python and SQL blocks",
    "live": "a stream of orders, which ends after a few seconds here",
    "models": "a dbt project; installs dbt on first use",
}
"""The example pipelines, with descriptions."""

_GITIGNORE = """\
# State, environments, logs and secrets of this machine.
/.streamline/
/.env
/output/
*.duckdb
*.duckdb.wal
__pycache__/
"""
_SETTINGS = """\
# Settings of this project. Connectors that do not come with Streamline are declared here, and installed on first use:
# plugins:
#   tap-shop: {pip: "pipelinewise-tap-postgres==2.1.0", executable: tap-postgres}
#   target-acme: {command: [python, connectors/acme.py], pass_env: ["AWS_*"]}
# state: sqlite:///.streamline/state.db
"""
_FOLDERS = ("data_loaders", "transformers", "data_exporters", "conditionals", "pipelines")


def make_project(root: Path, *, examples: bool = True) -> list[Path]:
    """Create a project in `root`. Return its files, relative to `root`. Other files in the folder are kept.

    Raises:
        ConfigError: `root` is a file or a project, or contains a file that would be overwritten.
    """
    if root.exists() and not root.is_dir():
        raise ConfigError(
            "is a file, not a folder",
            where=str(root),
            hint="name a folder that is empty or does not exist",
            code="project.not_made",
        )
    if root.is_dir() and (existing := project_file(root.absolute())) is not None:
        raise ConfigError(
            "is already a project",
            where=str(existing),
            hint="to add a pipeline to it: streamline create NAME",
            code="project.exists",
        )
    sources = {
        path.relative_to(TEMPLATE): path
        for path in sorted(TEMPLATE.rglob("*"))
        if examples and path.is_file() and "__pycache__" not in path.parts
    }
    name = re.sub(r"\W+", "_", root.absolute().name).strip("_") or "project"
    written = {Path(PROJECT_FILE): to_yaml({"name": name}) + _SETTINGS, Path(".gitignore"): _GITIGNORE}
    for relative in (*written, *sources):
        if (root / relative).exists() and relative != Path(".gitignore"):
            raise ConfigError(
                "file exists and is not overwritten",
                where=str(root / relative),
                hint="choose another folder",
                code="file.exists",
            )
    for folder in _FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for relative, source in sources.items():
        (root / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, root / relative)
    ignored = root / ".gitignore"
    if ignored.exists():
        written[Path(".gitignore")] = _joined(ignored.read_text(encoding="utf-8"), _GITIGNORE)
    for relative, text in written.items():
        (root / relative).write_text(text, encoding="utf-8")
    return sorted([*written, *sources])


def _joined(text: str, more: str) -> str:
    missing = [line for line in more.splitlines() if line not in text.splitlines()]
    return "\n".join([text.rstrip("\n"), *missing]) + "\n"
