"""`streamline demo --streaming`: orders on the way through a streaming pipeline, with a broker in memory."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamline.cli.demo_output import print_commands, say_title
from streamline.cli.output import count, print_table
from streamline.errors import PipelineFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamline.connectors.kafka.mock_cluster_client import MockCluster

PIPELINE = "orders"
ORDERS, TOTALS = "orders", "totals"
SECONDS = 5.0
RATE = 200
_LONGEST = 60.0
_BAD = range(100, 900, 157)
"""Numbers of the orders whose quantity is a text."""
_BUG, _FIX = 'order["quantity"]', 'int(order["quantity"])'
_NOWHERE = "localhost:9092"


def show(folder: Path) -> None:
    """Run the demo.

    Raises:
        ConfigError: confluent-kafka is missing, or the folder is not empty.
        PipelineFailed: a command failed.
    """
    from streamline.connectors.kafka.clients import mock_cluster
    from streamline.demo.project_folder import STREAMING, copy_project

    cluster = mock_cluster([ORDERS, TOTALS])
    copy_project(STREAMING, folder)
    metadata = folder / "pipelines" / PIPELINE / "metadata.yaml"
    say_title(f"Created a project in {folder}")
    purposes = {
        f"pipelines/{PIPELINE}/metadata.yaml": "the pipeline: source, transformer, sink",
        "data_loaders/read_orders.yaml": "the source: a Kafka topic, and the consumer group that reads it",
        "transformers/add_total.py": "the transformer: adds the total, and has a bug",
        "data_exporters/write_totals.yaml": "the sink: another topic",
    }
    print_table(["FILE", "DESCRIPTION"], purposes.items())
    click.echo(
        f"\nKafka is librdkafka's mock cluster here, in the memory of this process ({cluster.address}):\n"
        "real clients and a real protocol, but no real brokers. It is gone when the demo ends."
    )
    _replace(metadata, _NOWHERE, cluster.address)
    try:
        _play(folder, cluster)
    finally:
        _replace(metadata, cluster.address, _NOWHERE)

    say_title("Next steps")
    click.echo(
        f"The mock cluster ends here. For a Kafka of yours: change {_NOWHERE} in pipelines/{PIPELINE}/metadata.yaml."
    )
    commands = {
        f"streamline explain {PIPELINE}": "show the plan and its delivery guarantees",
        "streamline runs show": "show the last run",
        f"streamline check {PIPELINE}": "connect to your Kafka",
        f"streamline run {PIPELINE} --metrics-port 9100": "run until Ctrl-C, with metrics for Prometheus",
    }
    print_commands(folder, commands)


def _play(folder: Path, cluster: MockCluster) -> None:
    say_title(f"Orders come in for {SECONDS:.0f} seconds, {RATE} each second")
    totals = _stream(folder, cluster)

    say_title("What went out")
    print_table(["ORDER", "QUANTITY", "PRICE", "TOTAL"], [list(each.values())[:4] for each in totals[-3:]])
    click.echo(f"{count(_orders(), 'order')} in, {count(len(totals), 'total')} out, {count(len(_BAD), 'dead letter')}")

    say_title("The orders on which the transformer raised were set aside, and nothing had to wait for them")
    _run(folder, "dead-letters", "list", PIPELINE)

    say_title("The bug is fixed, and they are sent again")
    _replace(folder / "transformers" / "add_total.py", _BUG, _FIX)
    click.echo(f"transformers/add_total.py: {_BUG} is now {_FIX}")
    _run(folder, "dead-letters", "retry", PIPELINE)
    again = len(list(_values(cluster, len(totals) + len(_BAD))))
    click.echo(f"{count(_orders(), 'order')} in, {count(again, 'total')} out")


def _orders() -> int:
    return int(SECONDS * RATE)


def _stream(folder: Path, cluster: MockCluster) -> list[dict[str, object]]:
    """Run the pipeline while orders come in; return what went out."""
    click.echo(f"$ streamline run {PIPELINE}")
    sys.stdout.flush()
    begun, over = threading.Event(), threading.Event()
    orders = threading.Thread(target=_send_orders, args=(cluster, begun, over), name="orders", daemon=True)
    process = subprocess.Popen(_command("run", PIPELINE), cwd=folder)
    try:
        orders.start()
        totals = []
        for value in _values(cluster, _orders() - len(_BAD)):
            begun.set()
            totals.append(json.loads(value))
        process.send_signal(signal.SIGTERM)
        _check(folder, process.wait())
        return totals
    finally:
        over.set()
        begun.set()
        if process.poll() is None:
            process.terminate()
            process.wait()


def _send_orders(cluster: MockCluster, begun: threading.Event, over: threading.Event) -> None:
    """Send the first order, and the others when its total has come out: members need seconds to join their groups."""
    began = time.monotonic()
    for number in range(_orders()):
        quantity = 1 + number % 4
        order = {"id": number, "quantity": str(quantity) if number in _BAD else quantity, "price": 9.5 + number % 7}
        cluster.send(ORDERS, f"customer-{number % 50}", json.dumps(order).encode())
        if number == 0:
            begun.wait()
            began = time.monotonic()
        if over.wait(max(0.0, began + number / RATE - time.monotonic())):
            return
    cluster.flush()


def _values(cluster: MockCluster, number: int) -> Iterator[bytes]:
    """Read so many totals."""
    for read, value in enumerate(cluster.read(TOTALS, _LONGEST), 1):
        yield value
        if read == number:
            return


def _run(folder: Path, *words: str) -> None:
    click.echo(f"$ streamline {shlex.join(words)}")
    sys.stdout.flush()
    _check(folder, subprocess.run(_command(*words), cwd=folder, check=False).returncode)


def _check(folder: Path, code: int) -> None:
    if code:
        raise PipelineFailed(
            f"the demo's pipeline failed with exit code {code}",
            where=str(folder),
            hint=f"show its log: cd {shlex.quote(str(folder))} && streamline runs logs",
        )


def _command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "streamline", *words]


def _replace(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
