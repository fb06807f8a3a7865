"""The checklist of a version before it is published: what was measured -> what passes (pure).

A version may be published if no check FAILs. WARN is for people; SKIPPED says what would have to be given.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from gateway.tensor import TensorSpec

_SLOWER: Final = 1.5  # than the active version, which is worth a word
_TIGHT_RUNS: Final = 20  # fewer say little of a high quantile


class CheckState(StrEnum):
    """The outcomes of a check."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the checklist: what was checked, how it ended, and the facts of it."""

    name: str
    state: CheckState
    text: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What the runs of a version have shown.

    Units: microseconds of a run of one row, bytes beyond the process's own.
    """

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    run_us: tuple[float, ...] = ()
    peak_bytes: int = 0
    load_ms: float = 0.0
    rows_independent: bool | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GoldenOutcome:
    """How the golden requests ended: how many there are, and what is wrong with those that differ."""

    requests: int
    failures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CostBudget:
    """What a version may cost at most; 0: that is not asked. Units: microseconds at the 99th percentile, bytes."""

    latency_us: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Checklist:
    """The outcome for one version, in the order in which it was checked."""

    model: str
    digest: str
    size_bytes: int
    against: str
    checks: tuple[Check, ...] = ()
    published: str = ""
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def passes(self) -> bool:
        return all(check.state is not CheckState.FAIL for check in self.checks)


def quantile(values: Sequence[float], share: float) -> float:
    """Returns the smallest value that at least this share of the values does not exceed; 0.0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))] if ordered else 0.0


def contract_check(new: Measured, active: Measured | None, against: str, *, may_break: bool = False) -> Check:
    """Returns whether everybody who calls the active version can call the new one, too."""
    if active is None:
        why = f"version {against} told nothing" if against else "there is no version to compare with"
        return Check("contract", CheckState.SKIPPED, why)
    broken = [*_broken_inputs(new.inputs, active.inputs), *_broken_outputs(new.outputs, active.outputs)]
    if broken:
        state = CheckState.WARN if may_break else CheckState.FAIL
        return Check("contract", state, f"callers of version {against} are broken: {'; '.join(broken)}")
    return Check("contract", CheckState.PASS, f"takes and answers what version {against} does")


def golden_check(outcome: GoldenOutcome | None) -> Check:
    """Returns whether the golden requests had the expected answers."""
    if outcome is None:
        return Check("golden", CheckState.SKIPPED, "no requests with expected answers were given (--golden FILE)")
    if not outcome.requests:
        return Check("golden", CheckState.FAIL, "the file of golden requests holds none")
    if outcome.failures:
        more = f" and {len(outcome.failures) - 3} more" if len(outcome.failures) > 3 else ""
        shown = "; ".join(outcome.failures[:3])
        text = f"{len(outcome.failures)} of {outcome.requests} requests are answered otherwise: {shown}{more}"
        return Check("golden", CheckState.FAIL, text)
    return Check("golden", CheckState.PASS, f"{outcome.requests} requests have the expected answers")


def latency_check(new: Measured, active: Measured | None, budget: CostBudget, against: str) -> Check:
    """Returns whether a run of one row stays within its time."""
    if not new.run_us:
        state = CheckState.FAIL if budget.latency_us else CheckState.SKIPPED
        return Check("latency", state, "not measured: the model refuses made-up inputs; give --golden, or model_warmup")
    middle, high = quantile(new.run_us, 0.5), quantile(new.run_us, 0.99)
    text = f"a run takes {middle:.0f} us in the middle, {high:.0f} us at the 99th percentile of {len(new.run_us)}"
    if budget.latency_us and high > budget.latency_us:
        return Check("latency", CheckState.FAIL, f"{text}: more than the budget of {budget.latency_us / 1000:g} ms")
    before = quantile(active.run_us, 0.5) if active is not None else 0.0
    if before:
        text = f"{text}; version {against}: {before:.0f} us in the middle"
    if budget.latency_us and len(new.run_us) < _TIGHT_RUNS:
        return Check("latency", CheckState.WARN, f"{text}; of so few runs the percentile says little")
    slower = bool(before) and middle > _SLOWER * before
    return Check("latency", CheckState.WARN if slower else CheckState.PASS, text)


def memory_check(new: Measured, active: Measured | None, budget: CostBudget, against: str) -> Check:
    """Returns whether the version stays within its memory."""
    mib = new.peak_bytes / 2**20
    text = f"holds {mib:.0f} MiB at its highest"
    if budget.memory_bytes and new.peak_bytes > budget.memory_bytes:
        return Check(
            "memory", CheckState.FAIL, f"{text}: more than the budget of {budget.memory_bytes / 2**20:.0f} MiB"
        )
    if active is not None:
        text = f"{text}; version {against}: {active.peak_bytes / 2**20:.0f} MiB"
    more = active is not None and new.peak_bytes > _SLOWER * active.peak_bytes > 0
    return Check("memory", CheckState.WARN if more else CheckState.PASS, text)


def rows_check(new: Measured, active: Measured | None) -> Check:
    """Returns whether rows of one run answer alike alone and together, so that requests can share a run."""
    if new.rows_independent is None:
        return Check("rows", CheckState.SKIPPED, "rows were not compared: the version does not batch, or is random")
    if new.rows_independent:
        return Check("rows", CheckState.PASS, "a row has the same answer alone and among others")
    was = "; those of the active version do not" if active is not None and active.rows_independent else ""
    return Check("rows", CheckState.WARN, f"rows of one run depend on each other, requests are never merged{was}")


def load_check(new: Measured) -> Check:
    """Returns how the version was checked and loaded; it was, or there would be nothing to measure."""
    if new.warnings:
        return Check("load", CheckState.WARN, "; ".join(new.warnings))
    return Check("load", CheckState.PASS, f"checked by ONNX's checker, loaded in {new.load_ms:.0f} ms, and run")


def _broken_inputs(new: Sequence[TensorSpec], active: Sequence[TensorSpec]) -> list[str]:
    before = {spec.name: spec for spec in active}
    broken = [f"input {spec.name!r} is gone" for spec in active if spec.name not in {one.name for one in new}]
    for spec in new:
        old = before.get(spec.name)
        if old is None:
            if not spec.optional:
                broken.append(f"input {spec.name!r} is new, and must be sent")
        elif spec.datatype is not old.datatype:
            broken.append(f"input {spec.name!r} is {spec.datatype.wire_name}, it was {old.datatype.wire_name}")
        elif old.optional and not spec.optional:
            broken.append(f"input {spec.name!r} must be sent, it need not be before")
        elif not _takes(spec, old):
            broken.append(f"input {spec.name!r} has shape {list(spec.told_shape)}, it had {list(old.told_shape)}")
    return broken


def _broken_outputs(new: Sequence[TensorSpec], active: Sequence[TensorSpec]) -> list[str]:
    after = {spec.name: spec for spec in new}
    broken = []
    for old in active:
        spec = after.get(old.name)
        if spec is None:
            broken.append(f"output {old.name!r} is gone")
        elif spec.datatype is not old.datatype:
            broken.append(f"output {old.name!r} is {spec.datatype.wire_name}, it was {old.datatype.wire_name}")
        elif not _takes(old, spec):
            broken.append(f"output {old.name!r} has shape {list(spec.told_shape)}, it had {list(old.told_shape)}")
    return broken


def _takes(wide: TensorSpec, narrow: TensorSpec) -> bool:
    """Returns whether every tensor of the shape of `narrow` fits that of `wide`."""
    if wide.any_shape or narrow.any_shape:
        return wide.any_shape
    if len(wide.shape) != len(narrow.shape):
        return False
    return all(size in (-1, other) for size, other in zip(wide.shape, narrow.shape, strict=True))
