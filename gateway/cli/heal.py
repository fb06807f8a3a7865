"""gateway heal: healing a store that lost writes or is damaged."""

from typing import Annotated

import typer

from gateway.cli.applied_change import change_by_me, complain, kept_by, replicas_value, wait_for
from gateway.cli.change_options import CHANGING
from gateway.cli.client import control
from gateway.cli.printing import counted, show
from gateway.page.message_values import Value
from gateway.pb import control_pb2


def heal(
    accept_store: Annotated[
        bool, typer.Option("--accept-store", help="Declare right what the store holds; workers drop what they serve.")
    ] = False,
) -> None:
    """Heal a store that lost writes or is damaged: write back the routes that the answering worker serves."""
    options = CHANGING.get()
    change, wait = change_by_me(options.reason or "heal"), wait_for(options.timeout)
    request = control_pb2.HealRequest(
        accept_store=accept_store,
        change=change,
        wait=wait,
        dry_run=options.dry_run,
        expected_revision=options.expect_revision,
    )
    with control(options.server) as stub:
        answer = stub.Heal(request, timeout=options.timeout + 10)
    value: Value = {
        "epoch": answer.epoch,
        "revision": answer.revision,
        "accepted_store": accept_store,
        "findings": list(answer.findings),
        "applied_by": list(answer.applied_by),
        "laggards": list(answer.laggards),
        "replicas": replicas_value(answer.replicas),
    }
    done = "the store's routes are declared right" if accept_store else "the served routes are written back"
    facts = [
        f"{'with this ' if options.dry_run else ''}{done}: epoch {answer.epoch}, revision {answer.revision}",
        "" if options.dry_run else f"followed by {counted(len(answer.applied_by), 'worker')}",
        kept_by(answer.replicas),
    ]
    show(value, options.output, note=[f"wrong: {what}" for what in answer.findings] + ["; ".join(filter(None, facts))])
    complain(answer.laggards)
