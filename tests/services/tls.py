"""Certificates for servers that tests start: an authority of this run's own, made by the `openssl` program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.services.require import ServiceMissingError


class Certificates(NamedTuple):
    """Files in PEM format. The server's name is `localhost`, and not its address."""

    authority: Path
    server: Path
    """Key, certificate and authority in one file."""
    client_certificate: Path
    client_key: Path


def make_certificates(folder: Path) -> Certificates:
    """Make an authority, and a server and a client that it knows."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise ServiceMissingError("there is no 'openssl' to make certificates with")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run(
        *("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30"),
        *("-subj", "/CN=streamline-test-authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    for name in ("localhost", "client"):
        run("req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-out", f"{name}.pem", "-days", "30", "-extfile", "names"),
        )
    server = folder / "server.pem"
    server.write_text("".join((folder / part).read_text() for part in ("localhost.key", "localhost.pem", "ca.pem")))
    return Certificates(folder / "ca.pem", server, folder / "client.pem", folder / "client.key")
