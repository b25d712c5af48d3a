"""What the benchmarks share: a project with plain programs as plugins, input, interleaved runs, one ratio at the end.

Every script measures Streamline and its reference in one sitting, turn by turn, and compares medians, because the
same machine is easily twice as fast a minute later.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

# Plugins run with as little of Python as there is, so that it is not their start-up that is measured.
PYTHON = [sys.executable, "-I", "-S"]

# An installed package has its bytecode. Without it, half a second of every run is compiling: the warm-up writes it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

STREAM_SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "customer": {"type": ["null", "string"]},
        "email": {"type": ["null", "string"]},
        "status": {"type": ["null", "string"]},
        "total": {"type": ["null", "number"]},
        "items": {"type": ["null", "integer"]},
        "paid": {"type": ["null", "boolean"]},
        "created_at": {"type": ["null", "string"], "format": "date-time"},
        "note": {"type": ["null", "string"]},
    },
}

# What a tap or target must answer so that any runner can find out what it takes.
USAGE = "usage: plugin [--config CONFIG] [--discover] [--catalog CATALOG] [--state STATE]"

# `cat` as a tap: everything but discovery and questions is answered with the file, whatever the arguments are.
CAT_TAP = f"""\
case " $* " in
  *" --discover "*) exec cat catalog.json ;;
  *" --about "*) exit 2 ;;
  *" --help "* | *" -h "*) echo "{USAGE}"; exit 0 ;;
esac
exec cat "$(cat input.path)"
"""

# Reads lines, counts them, and says at its end what it got; what it says on its way is nothing.
COUNTING_TARGET = f"""\
import sys

if "--help" in sys.argv:
    sys.exit(print("{USAGE}"))
if "--about" in sys.argv:
    sys.exit(2)
lines = 0
line = b""
for line in sys.stdin.buffer:
    lines += 1
if line.startswith(b'{{"type":"STATE","value":'):
    print(line.decode()[24:-2])
with open("lines.txt", "w") as file:
    file.write(str(lines))
"""


def catalog(*streams: str) -> str:
    """A catalog of streams that all look like the orders."""
    return json.dumps(
        {
            "streams": [
                {
                    "tap_stream_id": name,
                    "stream": name,
                    "schema": STREAM_SCHEMA,
                    "key_properties": ["id"],
                    "metadata": [{"breadcrumb": [], "metadata": {"selected": True, "inclusion": "available"}}],
                }
                for name in streams
            ]
        }
    )


def schema_message(stream: str = "orders") -> bytes:
    """The stream's SCHEMA line."""
    message = {"type": "SCHEMA", "stream": stream, "schema": STREAM_SCHEMA, "key_properties": ["id"]}
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def record_message(number: int, stream: str = "orders") -> bytes:
    """A RECORD line of about 315 bytes."""
    return (
        b'{"type":"RECORD","stream":"%b","record":{"id":%d,"customer":"customer number %d","email":'
        b'"customer-%d@example.com","status":"%b","total":%d.%02d,"items":%d,"paid":%b,"created_at":'
        b'"2026-03-%02dT%02d:15:30+00:00","note":"left at the door; '
        b'the neighbour has a key, so ring twice and wait a minute or two"}}\n'
        % (
            stream.encode(),
            number,
            number % 9973,
            number % 9973,
            (b"open", b"packed", b"shipped")[number % 3],
            number % 500,
            number % 100,
            number % 7,
            b"true" if number % 2 else b"false",
            number % 28 + 1,
            number % 24,
        )
    )


def state_message(number: int, stream: str = "orders") -> bytes:
    """A STATE line whose bookmark is the record number."""
    return b'{"type":"STATE","value":{"bookmarks":{"%b":{"replication_key":"id","replication_key_value":%d}}}}\n' % (
        stream.encode(),
        number,
    )


def messages(records: int, state_every: int) -> Iterator[bytes]:
    """A tap's output, in parts of some thousand lines."""
    part = [schema_message()]
    for number in range(1, records + 1):
        part.append(record_message(number))
        if number % state_every == 0 or number == records:
            part.append(state_message(number))
        if len(part) > 5000:
            yield b"".join(part)
            part = []
    yield b"".join(part)


@dataclass
class Options:
    """What every script can be told.

    Args:
        records: RECORDs of the input.
        rounds: how often each side runs.
        work: the folder for input and projects; kept, so that the input is made once.
        json: print the result as JSON.
    """

    records: int
    rounds: int
    work: Path
    json: bool

    @classmethod
    def parse(cls, doc: str | None, *, records: int, rounds: int = 5) -> Options:
        """Read the command line."""
        parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--records", type=int, default=records, help="size of the input (%(default)s)")
        parser.add_argument("--rounds", type=int, default=rounds, help="runs of each side (%(default)s)")
        default = Path(tempfile.gettempdir()) / "streamline-benchmarks"
        parser.add_argument("--work", type=Path, default=default, help="folder for input and projects (%(default)s)")
        parser.add_argument("--json", action="store_true", help="print the result as JSON")
        arguments = parser.parse_args()
        arguments.work.mkdir(parents=True, exist_ok=True)
        return cls(arguments.records, arguments.rounds, arguments.work.resolve(), arguments.json)

    def input(self, records: int, state_every: int) -> Path:
        """The file of a tap's output with so many records, made where it is not there yet."""
        path = self.work / f"messages-{records}-{state_every}.jsonl"
        if not path.exists():
            self.say(f"writing {path.name}")
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                file.writelines(messages(records, state_every))
            partial.rename(path)
        return path

    def say(self, text: str) -> None:
        """A line of progress."""
        print(text, file=sys.stderr, flush=True)


class Project:
    """A project with one integration pipeline `demo`, and the same two programs joined by a shell pipe.

    Args:
        folder: made anew.
        tap: text of the tap; a shell script, or a Python program where it begins with `import`.
        target: text of the target, a Python program.
        source: more keys of the source block.
        destination: more keys of the destination block.
        transformer: text of a transformer block in Python.
        streams: names of the catalog's streams.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tap: str = CAT_TAP,
        target: str = COUNTING_TARGET,
        source: str = "",
        destination: str = "",
        transformer: str | None = None,
        streams: Sequence[str] = ("orders",),
    ) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        self.tap_command = [*PYTHON, "tap.py"] if tap.startswith("import ") else ["sh", "tap.sh"]
        self.target_command = [*PYTHON, "target.py"]
        self._write(self.tap_command[-1], tap)
        self._write("target.py", target)
        self._write("catalog.json", catalog(*streams))
        self._write("config.json", "{}")
        self._write(
            "streamline.yaml",
            f"""\
            name: benchmark
            plugins:
              tap-bench: {{command: {json.dumps(self.tap_command)}}}
              target-bench: {{command: {json.dumps(self.target_command)}}}
            """,
        )
        middle = "change" if transformer else None
        blocks = [
            {"uuid": "load", "type": "data_loader", "language": "yaml"},
            {"uuid": "export", "type": "data_exporter", "language": "yaml", "upstream_blocks": [middle or "load"]},
        ]
        if transformer:
            blocks.insert(1, {"uuid": "change", "type": "transformer", "upstream_blocks": ["load"]})
            self._write("transformers/change.py", transformer)
        # JSON is YAML.
        self._write(
            "pipelines/demo/metadata.yaml", json.dumps({"name": "demo", "type": "integration", "blocks": blocks})
        )
        self._write("data_loaders/load.yaml", "source: tap-bench\nconfig: {}\n" + textwrap.dedent(source))
        self._write(
            "data_exporters/export.yaml", "destination: target-bench\nconfig: {}\n" + textwrap.dedent(destination)
        )

    def feed(self, path: Path) -> None:
        """What the `cat` tap prints."""
        self._write("input.path", str(path))

    def streamline(self, *arguments: str) -> float:
        """Seconds that `streamline run demo` takes.

        Raises:
            SystemExit: it failed; its output is printed.
        """
        return self._time([*streamline_command(), "run", "demo", *arguments])

    def start(self) -> subprocess.Popen[bytes]:
        """`streamline run demo`, started."""
        return subprocess.Popen(
            [*streamline_command(), "run", "demo"],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "output.txt").open("wb"),
            stderr=subprocess.STDOUT,
        )

    def shell(self, *between: str) -> float:
        """Seconds that the two programs take when a shell joins them, with another program between or without."""
        tap = [*self.tap_command, "--config", "config.json", "--catalog", "catalog.json"]
        target = [*self.target_command, "--config", "config.json"]
        commands = [tap, list(between), target] if between else [tap, target]
        line = " | ".join(" ".join(map(quoted, command)) for command in commands)
        return self._time(["sh", "-c", line])

    def lines(self) -> int:
        """How many lines the target got in the run before."""
        path = self.folder / "lines.txt"
        count = int(path.read_text())
        path.unlink()
        return count

    def forget(self) -> None:
        """Take away what earlier runs left, the caches included."""
        shutil.rmtree(self.folder / ".streamline", ignore_errors=True)

    def _time(self, command: Sequence[str]) -> float:
        output = self.folder / "output.txt"
        with output.open("wb") as file:
            started = time.perf_counter()
            done = subprocess.run(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False
            )
            seconds = time.perf_counter() - started
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{output.read_text(errors='replace')[-4000:]}")
        return seconds

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def streamline_command() -> list[str]:
    """The installed command of this interpreter."""
    script = Path(sys.executable).parent / "streamline"
    return [str(script)] if script.exists() else [sys.executable, "-m", "streamline"]


def quoted(word: str) -> str:
    """A word for a shell."""
    import shlex

    return shlex.quote(word)


def interleaved(
    sides: Mapping[str, Callable[[], float]], rounds: int, say: Callable[[str], None], *, warm_up: bool = True
) -> dict[str, Times]:
    """Run each side in turn, so many rounds, every other round in reverse; a round to warm up is not counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(0 if warm_up else 1, rounds + 1):
        seconds = {name: sides[name]() for name in list(sides)[:: 1 if number % 2 else -1]}
        if number:
            for name in sides:
                times[name].append(seconds[name])
        say(f"round {number}: " + ", ".join(f"{name} {seconds[name]:.3f} s" for name in sides))
    return {name: Times(values) for name, values in times.items()}


@dataclass
class Times:
    """Seconds of several runs."""

    values: list[float]

    @property
    def median(self) -> float:
        """The median, which all ratios use."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{min(self.values):.3f} / {self.median:.3f} / {max(self.values):.3f} s"


@dataclass
class Result:
    """What a script found.

    Args:
        name: what was measured.
        value: the one number that counts.
        unit: of the number.
        bar: what it has to reach.
        at_most: whether lower is better.
        aim: what would be good.
        details: everything else, in words.
    """

    name: str
    value: float
    unit: str
    bar: float
    at_most: bool = False
    aim: float | None = None
    details: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the bar is reached."""
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        aim = f", aim {self.aim:g}" if self.aim is not None else ""
        verdict = "reached" if self.passed else "MISSED"
        return f"{self.name}: {self.value:,.2f} {self.unit} (bar {sign} {self.bar:g}{aim}): {verdict}"


def finish(options: Options, *results: Result) -> None:
    """Print what was found; the exit code is 1 where a bar was missed."""
    if options.json:
        print(json.dumps({"machine": machine(), "results": [asdict(r) | {"passed": r.passed} for r in results]}))
    else:
        print(machine())
        for result in results:
            for name, text in result.details.items():
                print(f"  {name}: {text}")
            print(result)
    sys.exit(0 if all(result.passed for result in results) else 1)


def machine() -> str:
    """The machine in a few words."""
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.2f}"
