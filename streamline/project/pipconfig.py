"""What the caller told pip, told to uv: uv reads neither pip's variables nor its files.

Where uv has settings of its own, they stand, and pip's are not looked at.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_UV_OWN = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_CONFIG_FILE")
_KEYS = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "cert")


def uv_settings(environ: Mapping[str, str], project: Path) -> tuple[dict[str, str], list[str]]:
    """The environment for uv, and options for `uv pip install`.

    Args:
        environ: the caller's environment; uv gets all of it.
        project: the project's folder; a uv.toml there counts as uv's own settings.
    """
    result = dict(environ)
    # Wanted: plain text that can be shown in an error.
    result |= {"NO_COLOR": "1", "UV_NO_PROGRESS": "1"}
    if any(environ.get(name) for name in _UV_OWN) or any(path.is_file() for path in _uv_files(environ, project)):
        return result, []
    pip = _pip_settings(environ)
    if "index-url" in pip:
        result["UV_DEFAULT_INDEX"] = pip["index-url"]
    if "extra-index-url" in pip:
        result["UV_INDEX"] = " ".join(pip["extra-index-url"].split())
    if "trusted-host" in pip:
        result.setdefault("UV_INSECURE_HOST", " ".join(pip["trusted-host"].split()))
    if Path(pip.get("cert", "")).is_file():
        result.setdefault("SSL_CERT_FILE", pip["cert"])
    # pip passes over folders that are not there; uv fails on them.
    links = [one for one in pip.get("find-links", "").split() if "://" in one or Path(one).expanduser().exists()]
    if links:
        result.setdefault("UV_FIND_LINKS", ",".join(links))
    return result, ["--no-index"] if pip.get("no-index", "").lower() in ("1", "true", "yes", "on") else []


def _uv_files(environ: Mapping[str, str], project: Path) -> list[Path]:
    config = environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return [project / "uv.toml", Path(config) / "uv" / "uv.toml", Path("/etc/uv/uv.toml")]


def _pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """pip's settings in its own order: system, user, environment, $PIP_CONFIG_FILE, variables; later wins."""
    import configparser

    config = environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    own = environ.get("PIP_CONFIG_FILE")
    files = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        Path.home() / ".pip" / "pip.conf",
        Path(config) / "pip" / "pip.conf",
        Path(sys.prefix) / "pip.conf",
    ]
    if own:
        files = [] if own == os.devnull else [*files, Path(own)]
    parser = configparser.RawConfigParser()
    for path in files:
        try:
            parser.read(path)
        except (configparser.Error, UnicodeDecodeError):
            continue
    result = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            result.update({key: value for key, value in parser.items(section) if key in _KEYS and value})
    for key in _KEYS:
        value = environ.get("PIP_" + key.replace("-", "_").upper())
        if value:
            result[key] = value
    return result
