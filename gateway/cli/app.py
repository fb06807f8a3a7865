"""The command tree, and the one place where failures become exit codes."""

from typing import Any

import typer
from typer.core import TyperGroup

from gateway.cli import log, models, routes, serve
from gateway.cli.exits import Failure
from gateway.cli.output import say


class Commands(TyperGroup):
    """A group whose commands end with the exit code of the Failure they raise."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Failure as failure:
            say(f"gateway: {failure}")
            raise typer.Exit(failure.exit_code) from None


app = typer.Typer(
    name="gateway",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A model serving gateway: serve ONNX models, and decide by rules which version answers.",
    epilog="Exit codes: 0 done, 1 the server said no, 2 usage, 3 not reachable, 4 timed out waiting.",
)
app.command(epilog="Example: gateway serve --model-repository ./models --data-dir ./data")(serve.serve)
app.command(epilog="Example: gateway models flights -o json")(models.models)
app.command(epilog="Example: gateway workers")(models.workers)
app.add_typer(routes.app, name="routes")
app.command(epilog="Example: gateway rollback flights --reason 'score dropped'")(routes.rollback)
app.add_typer(log.app, name="log")
app.command(epilog="Example: gateway version --server 127.0.0.1:8001")(serve.version)


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    app()
