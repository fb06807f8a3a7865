"""gateway rollout ...: canaries that move by themselves; where they are, and what people do to them."""

from typing import Annotated, Any

import typer

from gateway.cli.applied_change import change_by_me
from gateway.cli.client import control
from gateway.cli.printing import Format, show
from gateway.cli.shared_options import DEFAULT_SERVER, Model, Output, Reason, Server
from gateway.page.message_values import Value, cost_value, rollout_value
from gateway.pb import control_pb2, control_pb2_grpc

app = typer.Typer(
    no_args_is_help=True, help="Show rollouts that move by themselves, bandits too; pause, approve, abort, retry them."
)

BANDIT_COLUMNS = ("ARM", "VERSION", "WEIGHT", "REWARDS OF THIS WEIGHT", "MEAN", "OF REWARDS", "")
COLUMNS = ("MODEL", "PHASE", "STEP", "VERSIONS", "EVIDENCE", "HARMED", "NOW")
FINDING_COLUMNS = ("GUARDRAIL", "VERDICT", "CANARY", "STABLE", "TIMES THE STABLE RATE", "OF HARM", "OF HARMLESSNESS")
_Verb = control_pb2.SteerRolloutRequest
_TIMEOUT_S = 15


@app.command("list", epilog="Example: gateway rollout list")
def list_rollouts(server: Server = DEFAULT_SERVER, output: Output = Format.TABLE) -> None:
    """Print every rollout, those that are over too."""
    with control(server) as stub:
        states = states_of(stub)
    value: list[Value] = [rollout_value(state) for state in states]
    show(
        value,
        output,
        columns=COLUMNS,
        rows=map(rollout_row, states),
        note="" if states else "no rollout was ever begun",
    )


@app.command("show", epilog="Example: gateway rollout show flights")
def show_rollout(
    model: Model,
    price: Annotated[
        float,
        typer.Option("--cpu-hour-price", help="Of an hour of a CPU: each arm's cost in money as well.", min=0),
    ] = 0.0,
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Print where a rollout is, what it waits for, what each guardrail says by which numbers, load and cost."""
    with control(server) as stub:
        state = stub.GetRollout(control_pb2.GetRolloutRequest(model=model), timeout=_TIMEOUT_S)
    _tell(state, output, price)


@app.command(epilog="Example: gateway rollout pause flights --reason 'sales day'")
def pause(model: Model, reason: Reason = "", server: Server = DEFAULT_SERVER, output: Output = Format.TABLE) -> None:
    """Keep a rollout at its step; what does harm is taken back all the same."""
    _steer(model, _Verb.PAUSE, reason, server, output)


@app.command(epilog="Example: gateway rollout resume flights")
def resume(model: Model, reason: Reason = "", server: Server = DEFAULT_SERVER, output: Output = Format.TABLE) -> None:
    """Let a rollout go on that was paused, or whose share was set by hand."""
    _steer(model, _Verb.RESUME, reason, server, output)


@app.command(epilog="Example: gateway rollout abort flights --reason 'complaints'")
def abort(model: Model, reason: Reason = "", server: Server = DEFAULT_SERVER, output: Output = Format.TABLE) -> None:
    """Take the canary's share away at once; after a promotion the version before is the stable one again."""
    _steer(model, _Verb.ABORT, reason, server, output)


@app.command(epilog="Example: gateway rollout retry flights --reason 'the database was slow'")
def retry(model: Model, reason: Reason = "", server: Server = DEFAULT_SERVER, output: Output = Format.TABLE) -> None:
    """Begin a rollout that is over again, with its first step and no evidence."""
    _steer(model, _Verb.RETRY, reason, server, output)


@app.command(epilog="Example: gateway rollout approve flights --step 3")
def approve(
    model: Model,
    step: Annotated[
        int, typer.Option("--step", help="The step that may end, counted from 1; the present one.", min=0)
    ] = 0,
    reason: Reason = "",
    server: Server = DEFAULT_SERVER,
    output: Output = Format.TABLE,
) -> None:
    """Approve the end of a step; only those whom the step names may, and not who began the rollout."""
    with control(server) as stub:
        if not step:
            step = stub.GetRollout(control_pb2.GetRolloutRequest(model=model), timeout=_TIMEOUT_S).step + 1
        request = control_pb2.ApproveStepRequest(model=model, step=step - 1, change=change_by_me(reason))
        state = stub.ApproveStep(request, timeout=_TIMEOUT_S)
    _tell(state, output)


def states_of(stub: control_pb2_grpc.ControlStub) -> list[control_pb2.RolloutState]:
    """Returns every rollout, by model."""
    return list(stub.ListRollouts(control_pb2.ListRolloutsRequest(), timeout=_TIMEOUT_S).rollouts)


def rollout_row(state: control_pb2.RolloutState) -> list[Value]:
    """Returns a rollout as a line of a table."""
    step = f"{state.step + 1} of {state.steps}" if state.steps and state.phase == "ramping" else ""
    evidence = f"{state.evidence:.3g} of {state.bound:.3g}" if state.findings else ""
    now = f"{state.left_ms / 1000:.0f} s left; {state.told}" if state.left_ms else state.told
    versions = f"{state.stable_version} <- {state.canary_version}"
    if state.strategy == "bandit":
        versions = ", ".join(f"{arm.version} {arm.percent:g}%" for arm in state.arms)
    return [state.model, state.phase, step, versions, evidence, f"{state.harmed:.0f}", now]


def _finding_row(finding: control_pb2.RolloutFinding) -> list[Value]:
    return [
        finding.kind if finding.action == "fail" else f"{finding.kind} (warns)",
        finding.verdict,
        f"{finding.canary_events} of {finding.canary}",
        f"{finding.stable_events} of {finding.stable}",
        f"{finding.ratio_low:.3g} to {finding.ratio_high:.3g}",
        f"{finding.evidence:.3g}",
        f"{finding.pass_evidence:.3g}",
    ]


def _bandit_row(arm: control_pb2.BanditArm) -> list[Value]:
    is_known = arm.counted > 0
    return [
        *(arm.arm, arm.version, f"{arm.percent:g}%", arm.rewards),
        *(f"{arm.mean:.4g}" if is_known else "", f"{arm.counted:.0f}" if is_known else "", arm.out),
    ]


def _steer(model: str, verb: Any, reason: str, server: str, output: Format) -> None:
    request = control_pb2.SteerRolloutRequest(model=model, verb=verb, change=change_by_me(reason))
    with control(server) as stub:
        state = stub.SteerRollout(request, timeout=_TIMEOUT_S)
    _tell(state, output)


def _tell(state: control_pb2.RolloutState, output: Format, price: float = 0.0) -> None:
    if output is not Format.TABLE:
        show(rollout_value(state, price), output)
        return
    show(None, output, columns=COLUMNS, rows=[rollout_row(state)])
    if state.arms:
        show(None, output, columns=BANDIT_COLUMNS, rows=map(_bandit_row, state.arms))
    if state.phase == "watching":
        show(None, output, note=[f"watched: {finding.text}" for finding in state.findings])
    elif state.findings:
        show(None, output, columns=FINDING_COLUMNS, rows=map(_finding_row, state.findings))
    if state.HasField("capacity"):
        show(None, output, note=_capacity_note(state.capacity))
    if state.costs:
        show(None, output, note=[_cost_note(cost, price) for cost in state.costs])
    if state.paused_by:
        show(None, output, note=f"paused by {state.paused_by}: gateway rollout resume {state.model}")
    if state.approvers:
        end = f"the end of step {state.step + 1}"
        needed = f"{end} needs an approval by one of {', '.join(state.approvers)}"
        show(None, output, note=f"{end} is approved by {state.approved_by}" if state.approved_by else needed)


def _capacity_note(capacity: control_pb2.RolloutCapacity) -> str:
    return (
        f"capacity: {capacity.now:.0%} of {capacity.cores:.3g} CPUs in use, {capacity.at_next:.0%} at "
        f"{capacity.next_percent:g}%, {capacity.after_rollback:.0%} after a way back"
        + (" (what the canary costs is not known)" if capacity.assumed else "")
    )


def _cost_note(cost: control_pb2.ArmCost, price: float) -> str:
    told = f"{cost.arm}: {cost.cpu_seconds_per_1000:.3g} CPU seconds of runs for 1 000 requests"
    return told + (f", {cost_value(cost, price)['price_per_1000']:.3g} at that price" if price else "")
