"""The limits that a model file must keep, and the error for a file that does not."""

from dataclasses import dataclass

from gateway.errors import FailedPrecondition

_SHOWN = 160


class InvalidModel(FailedPrecondition):
    """Raised when a model file is refused; the text is the reason and may be shown to any client."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Holds the limits of verification.

    NaN in weights is refused unless `allow_nan` is set: such a model answers NaN. Infinity is allowed and counted:
    attention masks and clipping bounds use it.

    Units: sizes in bytes; lengths in characters.
    """

    allow_nan: bool = False
    max_model_bytes: int = (2 << 30) - 1  # what protobuf can hold; larger weights lie in external files
    max_tensor_bytes: int = 64 << 30
    max_name_length: int = 4096
    max_text_length: int = 1 << 20
    max_rank: int = 64


def shown(value: object) -> str:
    """Returns `value` quoted for an error text: control characters escaped, a long value cut."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
