"""`streamline test`: run the tests of blocks on the blocks' stored outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from streamline.cli.app import App, pass_app
from streamline.cli.output import count, json_option, print_json, say

if TYPE_CHECKING:
    from streamline.blocks.call import TestOutcome
    from streamline.execution.batch.stored_tests import BlockTests
    from streamline.processes.job import Failure


@click.command("test")
@click.argument("pipeline")
@click.option("--block-uuid", "block", metavar="U", help="Only this block's tests.")
@click.option(
    "--runtime-vars", multiple=True, metavar="JSON|@FILE|KEY=VALUE", help="Variables; may be given several times."
)
@json_option
@pass_app
def command(app: App, pipeline: str, block: str | None, runtime_vars: tuple[str, ...], as_json: bool) -> int:
    """Run the tests of a pipeline's blocks on their stored outputs. No block runs again.

    Exit codes: 0 all passed; 1 a test failed; 2 something is wrong, or nothing is stored.
    """
    from streamline.cli.progress import Display, error_text
    from streamline.cli.run import read_variables
    from streamline.execution.engine import engine_of
    from streamline.execution.events import Bus
    from streamline.execution.run import RunOptions

    model = app.load_pipeline(pipeline)
    options = RunOptions(variables=read_variables(runtime_vars), block=block, tests=True, debug=app.debug)
    display = Display(app, quiet=as_json)
    results = engine_of(model).test(app.project, model, options, Bus([display]))
    tests = [test for tested in results for test in tested.tests]
    failed = [test for test in tests if test.error is not None]
    passed = all(tested.passed for tested in results)
    if as_json:
        print_json({"pipeline": model.uuid, "passed": passed, "blocks": [_as_json(app, tested) for tested in results]})
        return 0 if passed else 1
    for tested in results:
        if not tested.stored:
            say(f"{tested.uuid}: no stored output")
        elif not tested.tests and tested.failure is None:
            say(f"{tested.uuid}: no tests")
        for test in tested.tests:
            say(f"{tested.uuid}: {test.name} {'passed' if test.error is None else 'failed'}")
    for tested in results:
        for test in tested.tests:
            if (failure := _failure(test)) is not None:
                say(app.mask(error_text(app, f"{tested.uuid}: {test.name}", failure)), err=True)
        if tested.failure is not None:
            say(app.mask(error_text(app, tested.uuid, tested.failure)), err=True)
    say(f"{count(len(tests) - len(failed), 'test')} passed, {len(failed)} failed")
    return 0 if passed else 1


def _failure(test: TestOutcome) -> Failure | None:
    if test.error is None:
        return None
    from streamline.processes.job import Failure

    return Failure(message=test.error, where=test.where, code="block.test_failed")


def _as_json(app: App, block: BlockTests) -> dict[str, Any]:
    tests = []
    for test in block.tests:
        failure = _failure(test)
        error = {} if failure is None else {"code": failure.code}
        tests.append(
            {"name": test.name, "passed": failure is None, "error": test.error and app.mask(test.error), **error}
        )
    failure = block.failure
    return {
        "uuid": block.uuid,
        "stored": block.stored,
        "passed": block.passed,
        "tests": tests,
        "error": app.mask(failure.message) if failure is not None else None,
        **({"code": failure.code} if failure is not None else {}),
    }
