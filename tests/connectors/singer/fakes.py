"""Small taps written on the spot, each with one habit of taps in the wild."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from streamline.connectors.plugins import Plugin

CATALOG = {
    "streams": [
        {
            "tap_stream_id": "users",
            "stream": "users",
            "schema": {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}}},
            "key_properties": ["id"],
        }
    ]
}

ARGPARSE = f"""
import argparse, json, os, pathlib, sys
with open("calls", "a") as calls: calls.write(" ".join(a for a in sys.argv[1:] if a.startswith("--")) + "\\n")
parser = argparse.ArgumentParser()
parser.add_argument("-c", "--config", required=True)
parser.add_argument("-s", "--state")
parser.add_argument("-p", "--properties")
parser.add_argument("--catalog")
parser.add_argument("-d", "--discover", action="store_true")
args = parser.parse_args()
CONFIG = json.loads(pathlib.Path(args.config).read_text())
CATALOG = {CATALOG!r}
"""

ECHO_CATALOG = ARGPARSE + "print(json.dumps(CATALOG, indent=2))\n"

PROPERTIES_ONLY = ECHO_CATALOG.replace('parser.add_argument("--catalog")\n', "")

NO_DISCOVERY = ARGPARSE.replace('parser.add_argument("-d", "--discover", action="store_true")\n', "") + "print('x')\n"

LINES = """
for number in range(200_000):
    print('{"type": "RECORD", "stream": "users", "record": {"id": %d}}' % number, flush=number < 2)
"""

SDK_LIKE = """
import json, sys
with open("calls", "a") as calls: calls.write(" ".join(a for a in sys.argv[1:] if a.startswith("--")) + "\\n")
if "--help" in sys.argv:
    print("Usage: tap-x [OPTIONS]\\n  --config TEXT\\n  --catalog TEXT\\n  --state TEXT\\n  --discover\\n  --about")
elif "--about" in sys.argv:
    print("a line of noise")
    print(json.dumps({"name": "tap-x", "sdk_version": "0.54.9",
        "capabilities": ["catalog", "state", "discover", "batch", "multiple-bookmarks"],
        "settings": {"properties": {"path": {"type": "string"}}}}))
"""


def tap(folder: Path, code: str, name: str = "tap-x", **more: object) -> Plugin:
    """A tap that runs `code`."""
    script = folder / f"{name}.py"
    script.write_text(code)
    return program(folder, [sys.executable, str(script)], name, **more)


def program(folder: Path, argv: list[str], name: str = "tap-x", **more: object) -> Plugin:
    """A tap that is any program."""
    values = {"library": None, "fingerprint": "1", **more}
    return Plugin(name=name, role="tap", argv=argv, env={"PATH": "/usr/bin:/bin"}, cwd=folder, kind="command", **values)


def calls(folder: Path) -> list[str]:
    """The options of each call of a fake, values left out."""
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def catalog_code(text: str) -> str:
    """A tap that discovers `text`."""
    return ARGPARSE + f"sys.stdout.write({text!r})\n"


CATALOG_TEXT = json.dumps(CATALOG)
