"""An S3 for tests: moto's server on loopback, in an environment of its own."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tests.services.process import free_port, guarded
from tests.services.require import ServiceMissingError

REQUIREMENT = "moto[server,s3]>=5.1,<6"


@dataclass(frozen=True)
class S3Server:
    """Where the object store listens. It checks no signature, so files are put with plain HTTP."""

    port: int

    @property
    def endpoint(self) -> str:
        """What S3 clients call `endpoint_url`."""
        return f"http://127.0.0.1:{self.port}"

    def make_bucket(self, bucket: str) -> None:
        """A new, empty bucket."""
        self._put(bucket, b"")

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write one object, replacing it; anybody may read it."""
        self._put(f"{bucket}/{key}", data)

    def _put(self, path: str, data: bytes) -> None:
        request = urllib.request.Request(f"{self.endpoint}/{quote(path)}", data=data, method="PUT")
        # urllib's default, a form, would be taken apart by the server before it reaches the object.
        request.add_header("Content-Type", "application/octet-stream")
        request.add_header("x-amz-acl", "public-read")
        with urllib.request.urlopen(request, timeout=10) as reply:
            reply.read()


@contextlib.contextmanager
def running() -> Iterator[S3Server]:
    """A server for the length of the `with`.

    Raises:
        ServiceMissingError: its environment could not be made, or it did not come up.
    """
    home = Path(tempfile.mkdtemp(prefix="streamline-moto-"))
    try:
        program = _environment(home) / "bin" / "moto_server"
    except ServiceMissingError:
        shutil.rmtree(home, ignore_errors=True)
        raise
    server = S3Server(free_port())

    def ready() -> bool:
        with urllib.request.urlopen(server.endpoint, timeout=5) as reply:
            return bool(reply.status == 200)

    command: list[str | Path] = [program, "-H", "127.0.0.1", "-p", str(server.port)]
    with guarded(command, folder=home, user="", ready=ready, log=home / "server.log"):
        yield server


def _environment(home: Path) -> Path:
    import uv

    tool, venv = uv.find_uv_bin(), home / "venv"
    for command in (
        [tool, "venv", "--quiet", "--python", sys.executable, str(venv)],
        [tool, "pip", "install", "--quiet", "--python", str(venv / "bin" / "python"), REQUIREMENT],
    ):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServiceMissingError(f"moto could not be installed: {done.stderr[-2000:]}")
    return venv
