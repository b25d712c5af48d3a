"""The tables of settings in docs/connectors/. `python -m tests.support.connector_pages` writes them anew."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path

from streamline.connectors.registry import bundled_connectors
from streamline.connectors.singer.capabilities import Capabilities

FOLDER = Path(__file__).parents[2] / "docs" / "connectors"


def page(connector: str) -> Path:
    """The page of a bundled connector."""
    return FOLDER / f"{connector}.md"


def with_settings(connector: str, text: str) -> str:
    """A page's text with the settings that the connector's `--about` lists."""
    pattern = rf"(<!-- settings of {connector}: [^\n]* -->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda match: match[1] + _table(connector) + match[2], text, flags=re.DOTALL)


def _table(connector: str) -> str:
    role, _, system = connector.partition("-")
    about = import_module(f"{role}s.{system}.__main__").CONNECTOR.about()
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for setting in Capabilities(about=about).described_settings():
        default = (
            "required" if setting.required else "" if setting.default is None else f"`{json.dumps(setting.default)}`"
        )
        choices = about["settings"]["properties"][setting.name].get("enum")
        kind = " or ".join(f"`{choice}`" for choice in choices) if choices else setting.type
        rows.append(f"| `{setting.name}` | {kind} | {default} | {setting.description.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    for each in bundled_connectors():
        path = page(each.name)
        path.write_text(with_settings(each.name, path.read_text(encoding="utf-8")), encoding="utf-8")
