"""The jars of Apache Kafka, as they are published.

Taken from the folder that STREAMLINE_KAFKA_LIBS names, else from a cache folder that Maven fills once.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.services.require import ServiceMissingError

LIBS_VARIABLE = "STREAMLINE_KAFKA_LIBS"
POM = Path(__file__).with_name("kafka-broker.pom")


def kafka_jars() -> Path:
    """The folder of the jars.

    Raises:
        ServiceMissingError: it is not there and cannot be filled; the text says why.
    """
    if named := os.environ.get(LIBS_VARIABLE):
        if not any(Path(named).glob("kafka_*.jar")):
            raise ServiceMissingError(f"{LIBS_VARIABLE} names {named}, which holds no kafka_*.jar")
        return Path(named)
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamline-tests"
    folder = caches / f"kafka-{_version()}"
    caches.mkdir(parents=True, exist_ok=True)
    with (caches / "kafka.lock").open("w") as lock:  # every worker of a parallel run wants them at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _fetch(folder)
    return folder


def _version() -> str:
    match = re.search(r"<artifactId>kafka_[\d.]+</artifactId>\s*<version>([^<]+)<", POM.read_text())
    assert match, f"{POM.name} names no version of Kafka"
    return match[1]


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ServiceMissingError(f"no Kafka: install Maven (the system's 'maven'), or set {LIBS_VARIABLE}")
    partial = Path(tempfile.mkdtemp(prefix="kafka-", dir=folder.parent))
    try:
        command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={partial}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServiceMissingError(f"Maven could not fetch Kafka: {(done.stdout + done.stderr)[-2000:]}")
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
