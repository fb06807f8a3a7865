"""The command tree, and the one place where failures become exit codes."""

from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import gateway
from gateway.cli import (
    amend,
    apply,
    audit,
    doctor,
    draft,
    drift,
    drift_status,
    explain,
    feedback,
    heal,
    log,
    models,
    plan,
    profile,
    publish,
    query,
    quota_table,
    redis_acl,
    replay,
    rerun,
    results,
    retire,
    rollout,
    routes,
    serve,
    spec_diff,
    status,
    token,
    transfer,
)
from gateway.cli.change_options import ChangeCommand
from gateway.cli.command_time import note_start
from gateway.cli.exits import Exit, Failure
from gateway.cli.printing import say
from gateway.cli.tls import ServerCommand


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
    epilog=f"Exit codes: {', '.join(f'{exit.value} {exit.meaning}' for exit in Exit)}.",
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gateway {gateway.__version__}")
        raise typer.Exit


@app.callback()
def gateway_(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A model serving gateway: serve ONNX models, and decide by rules which version answers."""


_change = partial(app.command, cls=ChangeCommand)
app.command(epilog="Example: gateway serve --model-repository ./models --data-dir ./data")(serve.serve)
app.command(epilog="Example: gateway doctor --config gateway.yaml")(doctor.doctor)
app.command(epilog="Example: gateway models flights -o json")(models.models)
app.command(epilog="Example: gateway workers")(models.workers)
app.command(epilog="Example: gateway quotas -o json")(quota_table.quotas)
app.add_typer(routes.app, name="routes")
app.command(epilog="Example: gateway status --watch")(status.status)
app.command(epilog="Example: gateway plan -f route.yaml")(plan.plan)
app.command("diff", epilog="Example: gateway diff -f routes/")(spec_diff.diff_files)
_change(epilog="Example: gateway apply -f routes/ --reason 'as in the repository'")(apply.apply)
_change(epilog="Example: gateway rollback flights --reason 'score dropped'")(routes.rollback)
_change(epilog="Example: gateway flip flights --reason 'the new one is warm'")(amend.flip)
_change(epilog="Example: gateway weights flights a=90 b=10")(amend.weights)
_change(epilog="Example: gateway pin flights stable")(amend.pin)
_change(epilog="Example: gateway kill flights --reason 'incident 4711'")(amend.kill)
_change(epilog="Example: gateway unkill flights")(amend.unkill)
_change(epilog="Example: gateway promote flights --full")(amend.promote)
_change(epilog="Example: gateway label digits stable=2 --reason 'a week without complaints'")(amend.label)
app.command(epilog="Example: gateway explain flights --key user-17")(explain.explain)
app.command(epilog="Example: gateway simulate -f draft.yaml --keys users.txt")(explain.simulate)
app.command(epilog="Example: gateway replay digits --version 2 --against 1 --window 1d --fail-above 1%")(replay.replay)
app.command(epilog="Example: gateway validate export/model.onnx digits --golden golden.jsonl --latency-ms 2")(
    publish.validate
)
app.command(epilog="Example: gateway publish export/model.onnx digits --lineage revision=4f2a --html checklist.html")(
    publish.publish
)
app.command(epilog="Example: gateway retire digits 1 --reason 'no route names it since May'")(retire.retire)
app.command(epilog="Example: gateway delete digits 1 --yes")(retire.delete)
app.command(epilog="Example: gateway rerun digits 7f3a")(rerun.rerun)
app.add_typer(rollout.app, name="rollout")
app.command(epilog="Example: gateway results flights --by f.distance --html results.html")(results.results)
app.add_typer(audit.app, name="audit")
_change(epilog="Example: gateway heal --reason 'failover lost the last writes'")(heal.heal)
app.command(epilog="Example: gateway export -f routes.yaml")(transfer.export)
_change("import", epilog="Example: gateway import -f routes.yaml --dry-run")(transfer.import_routes)
app.add_typer(draft.app, name="draft")
log.app.command(
    epilog="Example: gateway log query 'SELECT version, count(*) AS rows, avg(pred_score) FROM predictions GROUP BY 1'"
)(query.query)
app.add_typer(log.app, name="log")
app.add_typer(feedback.app, name="feedback")
app.add_typer(profile.app, name="profile")
drift.app.command(epilog="Example: gateway drift status flights")(drift_status.status)
app.add_typer(drift.app, name="drift")
app.command("redis-acl", epilog="Example: gateway redis-acl --environment production")(redis_acl.redis_acl)
app.add_typer(token.app, name="token")
app.command(epilog="Example: gateway version --server 127.0.0.1:8001")(serve.version)


def _speak_tls(commands: typer.Typer) -> None:
    """Gives every command that talks to a server the TLS options: in one place, so that none is left out."""
    for command in commands.registered_commands:
        if not issubclass(command.cls or TyperCommand, ServerCommand):
            command.cls = ServerCommand
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            _speak_tls(group.typer_instance)


_speak_tls(app)


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    note_start()
    app()
