"""What tells a checkout of a project from the others."""

from __future__ import annotations

import hashlib
import secrets
import socket
from pathlib import Path

from streamline.project.files import replace_file

ID_FILE = "checkout-id"


def checkout_id(root: Path, work_dir: Path) -> str:
    """Return twelve letters that stay the same as long as the project's folder stays where it is.

    A random number in the folder for work, the folder's path and the host's name go into it. So a copy of the folder,
    with all that it holds, has another id, and so has a container of the same path on another host.

    Raises:
        OSError: the number cannot be read or kept.
    """
    file = work_dir / ID_FILE
    if not file.exists():
        replace_file(file, f"{secrets.token_hex(16)}\n", mode=0o600)
    parts = (file.read_text("utf-8").strip(), str(root.resolve()), socket.gethostname())
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:12]
