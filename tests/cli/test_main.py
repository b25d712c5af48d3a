"""The command line's frame: what is listed and imported, errors, exit codes."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from streamline import __version__
from streamline.cli.app import App
from streamline.cli.main import COMMANDS, Lazy, LazyGroup, main
from streamline.cli.output import say
from streamline.errors import ConfigError, LeaseHeld, StreamlineError


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_help_lists_the_commands_that_exist() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name, lazy in COMMANDS.items():
        exists = find_spec(lazy.target.partition(":")[0]) is not None
        assert (f"\n  {name} " in result.output) is exists
    assert "Show and change the positions" in result.output


def test_help_imports_no_command_and_nothing_heavy() -> None:
    loaded = run_python(
        "import sys\n"
        "from streamline.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith('streamline.cli.')\n"
        "       or m in ('msgspec', 'sqlite3', 'yaml', 'jinja2', 'pyarrow', 'pandas', 'anyio')])\n"
    ).splitlines()[-1]
    frame = ["streamline.cli.collector", "streamline.cli.app", "streamline.cli.terminal", "streamline.cli.main"]
    assert loaded == str(frame)


@pytest.mark.parametrize("name", [name for name in COMMANDS if find_spec(COMMANDS[name].target.partition(":")[0])])
def test_every_listed_command_has_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"streamline {name}" in result.output
    assert "--project" in result.output


def test_the_module_and_the_version() -> None:
    done = subprocess.run([sys.executable, "-m", "streamline", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"streamline {__version__}\n"


def test_an_unknown_command_is_wrong_use_with_the_nearest_named() -> None:
    result = CliRunner().invoke(main, ["stat"])
    assert result.exit_code == 2
    assert "'state'" in result.stderr
    result = CliRunner().invoke(main, ["state", "list", "p", "--nonsense"])
    assert result.exit_code == 2


def test_a_folder_that_is_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["runs", "list"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert "streamline.yaml" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["--project", "DIR", "runs", "list"],
        ["runs", "--project", "DIR", "list"],
        ["runs", "list", "--project", "DIR"],
        ["runs", "list", "--project=DIR", "--debug"],
    ],
)
def test_the_project_can_be_named_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str]) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "streamline.yaml").write_text("name: shop\n")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, [arg.replace("DIR", "shop") for arg in args])
    assert result.exit_code == 0, result.output


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command `act` whose body is the function given."""

    def invoke(act: Callable[[App], object], *args: str) -> Result:
        @click.command("act")
        @click.pass_obj
        def command(app: App) -> object:
            return act(app)

        module = type(sys)("streamline.cli.act")
        module.command = command  # type: ignore[attr-defined]
        module.__spec__ = find_spec("streamline.cli.main")
        monkeypatch.setitem(sys.modules, "streamline.cli.act", module)
        monkeypatch.setitem(COMMANDS, "act", Lazy("streamline.cli.act:command", "Act."))
        return CliRunner().invoke(main, [*args, "act"])

    return invoke


def raising(error: BaseException) -> Callable[[App], object]:
    def act(app: App) -> object:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            StreamlineError("it broke", where="load", hint="Mend it."),
            1,
            "Error: load: it broke\n  Mend it.\n",
        ),
        (ConfigError("it is wrong", where="x.yaml:3"), 2, "Error: x.yaml:3: it is wrong\n"),
        (LeaseHeld("run r1 holds it"), 1, "Error: run r1 holds it\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (click.UsageError("say which"), 2, "Error: say which\n"),
    ],
)
def test_errors_end_in_words_and_exit_codes(
    invoke: Callable[..., Result], error: BaseException, code: int, text: str
) -> None:
    result = invoke(raising(error))
    assert result.exit_code == code
    assert result.stderr.lstrip("\n").endswith(text)
    assert "Traceback" not in result.stderr


def test_what_nobody_expected_is_called_a_bug(invoke: Callable[..., Result]) -> None:
    result = invoke(raising(KeyError("x")))
    assert result.exit_code == 1
    assert "Error: unexpected KeyError: 'x'" in result.stderr
    assert "bug" in result.stderr
    assert "--debug" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_folder_that_cannot_be_written_is_no_bug(invoke: Callable[..., Result]) -> None:
    result = invoke(raising(OSError(errno.EROFS, "Read-only file system", "/data/shop/pipelines")))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: /data/shop/pipelines: Read-only file system\n  ")
    assert "bug" not in result.stderr


def test_a_full_disk_is_named_with_its_free_space(invoke: Callable[..., Result], tmp_path: Path) -> None:
    file = str(tmp_path / "new" / "file")
    result = invoke(raising(OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), file)))
    assert result.exit_code == 1
    assert re.match(rf"Error: {re.escape(file)}: the disk is full.* \([\d,]+ KiB are free", result.stderr)


def test_output_that_cannot_be_written_is_no_bug(invoke: Callable[..., Result]) -> None:
    result = invoke(raising(OSError(errno.ENOSPC, "No space left on device")))
    assert result.exit_code == 1
    assert "output cannot be written: No space left" in result.stderr
    assert "bug" not in result.stderr


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 1), (errno.EPIPE, 0)])
def test_a_command_works_on_when_its_output_is_lost_and_fails_in_the_end_unless_its_reader_has_gone(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    done = []

    def fail(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    def act(app: App) -> int:
        with monkeypatch.context() as patch:
            patch.setattr("click.echo", fail)
            patch.setattr("streamline.cli.output._hush", lambda stream: None)
            say("a line")
        done.append(True)
        return 0

    result = invoke(act)
    assert done
    assert result.exit_code == code
    assert invoke(lambda app: 0).exit_code == 0


def test_debug_shows_the_traceback(invoke: Callable[..., Result]) -> None:
    assert "Traceback" in invoke(raising(KeyError("x")), "--debug").stderr
    result = invoke(raising(ConfigError("it is wrong")), "--debug")
    assert "Traceback" in result.stderr
    assert result.exit_code == 2


def test_errors_do_not_show_secrets(
    invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "streamline.yaml").write_text("name: shop\n")
    monkeypatch.setenv("STREAMLINE_SECRET_SHOP", "geheim-123")

    def act(app: App) -> object:
        raise RuntimeError(f"cannot log in with {app.project.secrets.get('shop')}")

    result = invoke(act, "--project", str(tmp_path), "--debug")
    assert result.exit_code == 1
    assert "cannot log in with" in result.stderr
    assert "geheim-123" not in result.stderr


def test_a_command_says_its_exit_code(invoke: Callable[..., Result]) -> None:
    assert invoke(lambda app: None).exit_code == 0
    assert invoke(lambda app: 3).exit_code == 3
    assert invoke(lambda app: True).exit_code == 0
    assert invoke(lambda app: click.get_current_context().exit(1)).exit_code == 1


def test_main_is_a_lazy_group() -> None:
    assert isinstance(main, LazyGroup)
