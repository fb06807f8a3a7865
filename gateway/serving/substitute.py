"""Substitutes: versions that can answer, with the tensors as they are, what was decoded for another."""

from collections.abc import Sequence

from gateway.serving.version import Version
from gateway.tensor import TensorSpec


def same_contract(first: Version, second: Version) -> bool:
    """Returns whether both versions take the same inputs and give the same outputs, in the same order.

    Labels of classes and the number of rows that they take at most may differ.
    """
    return (
        first.batches == second.batches
        and _alike(first.inputs, second.inputs)
        and _alike(first.outputs, second.outputs)
    )


def takes(version: Version, rows: int) -> bool:
    """Returns whether the version takes a request of so many rows."""
    limit = version.config.max_request_rows
    return not version.batches or not limit or rows <= limit


def _alike(first: Sequence[TensorSpec], second: Sequence[TensorSpec]) -> bool:
    return len(first) == len(second) and all(
        mine.name == theirs.name
        and mine.datatype is theirs.datatype
        and mine.shape == theirs.shape
        and mine.any_shape == theirs.any_shape
        and mine.optional == theirs.optional
        for mine, theirs in zip(first, second, strict=True)
    )
