"""Translate pip's configuration for uv, which reads neither pip's environment variables nor its files.

If uv has its own configuration, pip's is ignored.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_UV_OWN = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_CONFIG_FILE")
_KEYS = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "cert")


def uv_settings(environ: Mapping[str, str], project: Path) -> tuple[dict[str, str], list[str]]:
    """Return the environment variables for uv, and options for `uv pip install`.

    Args:
        environ: the caller's environment, which uv inherits.
        project: the project's folder; a uv.toml in it counts as uv's own configuration.
    """
    result = dict(environ)
    # Error messages show uv's output.
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
    # pip ignores missing folders; uv fails.
    links = [link for link in pip.get("find-links", "").split() if "://" in link or Path(link).expanduser().exists()]
    if links:
        result.setdefault("UV_FIND_LINKS", ",".join(links))
    return result, ["--no-index"] if pip.get("no-index", "").lower() in ("1", "true", "yes", "on") else []


def _uv_files(environ: Mapping[str, str], project: Path) -> list[Path]:
    config = environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return [project / "uv.toml", Path(config) / "uv" / "uv.toml", Path("/etc/uv/uv.toml")]


def _pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Read pip's settings in its order of precedence: system, user, environment, $PIP_CONFIG_FILE, variables."""
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
