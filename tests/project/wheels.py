"""Small wheels made by hand, so that environments can be tested without an index."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    scripts: Sequence[str] = (),
    requires: Sequence[str] = (),
    body: str = "",
    entry_points: Mapping[str, Mapping[str, str]] = {},
) -> Path:
    """Write a wheel whose scripts print the name, the version and their arguments; returns its path.

    Args:
        body: the module's text, in place of the one with the scripts.
        entry_points: `{group: {name: "module:attribute"}}`, beside the scripts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    code = body or (f"import sys\ndef main():\n    print({name!r}, {version!r}, *sys.argv[1:])\n")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files: Mapping[str, str] = {
        f"{module}.py": code,
        f"{info}/METADATA": metadata + "".join(f"Requires-Dist: {one}\n" for one in requires),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "".join(
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
            for group, points in {"console_scripts": dict.fromkeys(scripts, f"{module}:main"), **entry_points}.items()
        ),
    }
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
        record = "".join(f"{file},sha256={_digest(text)},{len(text.encode())}\n" for file, text in files.items())
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
