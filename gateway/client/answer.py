"""Answers as applications read them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from gateway.tensor import Array


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What one request was answered with, by which version, and why by that one.

    `answer["label"]` is an output. `token` names this answer in feedback, "" where the gateway gives none. `arm` and
    `reason` are "" and `revision` is 0 where the answer does not tell them.
    """

    outputs: Mapping[str, Array]
    model: str
    version: str
    request_id: str
    arm: str = ""
    revision: int = 0
    reason: str = ""
    token: str = ""

    def __getitem__(self, name: str) -> Array:
        try:
            return self.outputs[name]
        except KeyError:
            raise KeyError(f"no output {name!r}; there are {', '.join(self.outputs) or 'none'}") from None

    def __iter__(self) -> Iterator[str]:
        """Yields the names of the outputs."""
        return iter(self.outputs)


@dataclass(frozen=True, slots=True, eq=False)
class JoinedAnswers:
    """The answers to many rows that were sent in several calls. Order: that of the rows.

    Shapes: each output is joined along its first axis.
    """

    answers: tuple[Answer, ...]

    @property
    def outputs(self) -> dict[str, Array]:
        """Raises: ValueError where two versions answered with outputs that do not fit together."""
        if not self.answers:
            return {}
        return {name: self[name] for name in self.answers[0].outputs}

    def __getitem__(self, name: str) -> Array:
        if not self.answers:
            raise KeyError(f"no output {name!r}: there were no rows")
        return np.concatenate([answer[name] for answer in self.answers])

    def __iter__(self) -> Iterator[str]:
        """Yields the names of the outputs."""
        return iter(self.answers[0].outputs if self.answers else ())
