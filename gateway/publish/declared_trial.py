"""The checklist of a version without a model file: an ensemble, run as a whole where it can be, or a feature view."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.features.view_parameters import feature_view
from gateway.publish.checklist import (
    Check,
    CheckState,
    CostBudget,
    GoldenOutcome,
    Measured,
    contract_check,
    golden_check,
    latency_check,
    memory_check,
    rows_check,
)
from gateway.replay.run_files import IN_A_STORE, EnsembleFiles, LookUpFiles
from gateway.serving.repository import CONFIG_FILENAME


@dataclass(frozen=True, slots=True)
class ComparedVersion:
    """The active version, what it has shown (None: nothing), and what else is to be said of it."""

    active: Measured | None
    against: str
    notes: Sequence[Check] = ()
    may_break: bool = False


def declared_checks(
    files: EnsembleFiles | LookUpFiles,
    size_bytes: int,
    new: Measured,
    outcome: GoldenOutcome | None,
    comparison: ComparedVersion,
    budget: CostBudget,
    *,
    asks_golden: bool,
) -> tuple[Check, ...]:
    """Returns all checks; what cannot be looked at here says why, and fails where it was asked for.

    Raises: FailedPrecondition naming the parameter of a feature view that is wrong.
    """
    against, active = comparison.against, comparison.active
    checks = [
        Check("files", CheckState.PASS, f"{CONFIG_FILENAME}, {size_bytes} bytes, SHA-256 {files.digest}"),
        *comparison.notes,
    ]
    if isinstance(files, EnsembleFiles):
        chosen = files.chosen()
        text = f"{len(files.steps)} steps have a version that runs"
        if chosen:
            text = f"{text}; where the rules of a model decide, the newest one was taken: {', '.join(chosen)}"
        checks.append(Check("steps", CheckState.PASS, text))
        look_up = files.look_up()
        loaded = f"the tensors of the steps fit each other; their models loaded in {new.load_ms:.0f} ms"
    else:
        config = files.config
        feature_view(config.name, config.parameters, config.inputs, config.outputs)
        look_up = f"it {IN_A_STORE}"
        loaded = "its parameters and tensors fit each other"
    how = "it ran as a whole" if new.run_us else "it refuses the inputs that it was given"
    if look_up:
        how = "it was not run"
    loaded = f"{loaded}; {how}"
    if new.warnings:
        checks.append(Check("load", CheckState.WARN, f"{loaded}; {'; '.join(new.warnings)}"))
    else:
        checks.append(Check("load", CheckState.PASS, loaded))
    checks.append(contract_check(new, active, against, may_break=comparison.may_break))
    if look_up:
        asked = (("golden", asks_golden), ("latency", budget.latency_us > 0), ("memory", budget.memory_bytes > 0))
        checks += [_not_run(name, look_up, wanted=wanted) for name, wanted in asked]
    else:
        checks += [
            golden_check(outcome),
            latency_check(new, active, budget, against),
            memory_check(new, active, budget, against),
            rows_check(new, active),
        ]
    return tuple(checks)


def _not_run(name: str, look_up: str, *, wanted: bool) -> Check:
    state = CheckState.FAIL if wanted else CheckState.SKIPPED
    return Check(name, state, f"not run: {look_up}, which only a gateway that serves it asks: send it requests there")
