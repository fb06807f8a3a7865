"""Tells what is asked to be hidden: values that a configuration can hold without what carries them out."""

from dataclasses import dataclass
from enum import Enum

EVERY_MODEL = "*"


class RedactionAction(Enum):
    """DROP leaves the tensor out, NULL blanks it (or one feature of it), HASH puts an HMAC in place of a text,
    BUCKET puts the number of the interval between `edges` in place of a number."""

    DROP = "drop"
    NULL = "null"
    HASH = "hash"
    BUCKET = "bucket"


class InputMode(Enum):
    """Names which inputs are logged at all."""

    ALL = "all"
    LISTED = "listed"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class RedactionRule:
    """One action on one tensor of a model, "*": of every model; `feature` is an index into its instance, None: all."""

    model: str
    tensor: str
    action: RedactionAction
    feature: int | None = None
    edges: tuple[float, ...] = ()

    def concerns(self, model: str) -> bool:
        return self.model in (model, EVERY_MODEL)
