"""Merging: the decision whether requests of several clients may share a run of a version, and its reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.errors import FailedPrecondition
from gateway.serving.config_source import ConfigSource
from gateway.serving.model_kind import ModelKind

# The gateway's own parameter: an operator who knows the model overrides the rules below.
MERGE_PARAMETER = "merge_requests"
_DEPENDENT = "rows of one run depend on each other, as runs with random rows showed"


@dataclass(frozen=True, slots=True)
class Merging:
    """Holds the decision and the rule behind it, as an operator reads it."""

    allowed: bool
    reason: str

    def __str__(self) -> str:
        return f"{'yes' if self.allowed else 'no'}: {self.reason}"


# Of those that no session of their own runs.
WITHOUT_SESSION: Final[Mapping[ModelKind, Merging]] = {
    ModelKind.ENSEMBLE: Merging(False, "its steps are, each by the rules of its own model"),
    ModelKind.FEATURES: Merging(False, "look-ups that come together share a pipeline to the store"),
}


def merging(
    source: ConfigSource, max_batch_size: int, row_dependence: str, rows_independent: bool | None, chance: str = ""
) -> Merging:
    """Returns whether requests are merged, and why.

    `row_dependence` says why the graph does not prove its rows independent ("" if it does); `rows_independent` is
    what runs with random rows showed (None: not tried, or nothing); `chance` names what answers by chance.

    1. A version that does not batch merges nothing.
    2. A version that answers by chance merges nothing: what a request draws would depend on who came with it.
    3. The parameter merge_requests decides.
    4. Rows that were seen to depend on each other are kept apart.
    5. If there is a configuration, its dynamic_batching decides, as in Triton: without that field nothing is merged.
    6. Without a configuration the graph must prove that rows are independent.

    Raises: FailedPrecondition, where merge_requests is neither true nor false.
    """
    batches = max_batch_size > 0
    if not batches and source.sets("max_batch_size"):
        return Merging(False, "the version does not batch (max_batch_size is 0)")
    if chance:
        return Merging(False, f"the version answers by chance: {chance}")
    if not batches and rows_independent is False:
        return Merging(False, _DEPENDENT)
    if not batches:
        return Merging(False, "the version does not batch (not all of its tensors have a free first axis)")
    if MERGE_PARAMETER in source.message.parameters:
        text = source.message.parameters[MERGE_PARAMETER].string_value.strip().lower()
        if text not in ("true", "false"):
            raise FailedPrecondition(f"parameters.{MERGE_PARAMETER}: {text[:40]!a} must be true or false")
        return Merging(text == "true", f"{MERGE_PARAMETER} is {text}")
    if rows_independent is False:
        return Merging(False, _DEPENDENT)
    if source.fields:
        if source.sets("dynamic_batching"):
            return Merging(True, "dynamic_batching is configured")
        return Merging(False, "the configuration has no dynamic_batching")
    if row_dependence:
        return Merging(False, f"the graph does not show that rows are independent: {row_dependence}")
    return Merging(True, "the graph shows that rows are independent")
