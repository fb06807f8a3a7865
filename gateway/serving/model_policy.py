"""What a model file may be, and the error for one that is not."""

from dataclasses import dataclass

from gateway.errors import FailedPrecondition

_SHOWN = 160


class InvalidModel(FailedPrecondition):
    """A model file is refused; the text is the reason, fit to be shown to any client."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits of verification.

    NaN in weights is refused unless `allow_nan`: such a model answers NaN. Infinity is allowed and counted, since
    attention masks and clipping bounds are made of it.

    Units: sizes in bytes; lengths in characters.
    """

    allow_nan: bool = False
    max_model_bytes: int = (2 << 30) - 1  # what protobuf can hold; larger weights lie in external files
    max_tensor_bytes: int = 64 << 30
    max_name_length: int = 4096
    max_text_length: int = 1 << 20
    max_rank: int = 64


def shown(value: object) -> str:
    """`value` quoted for an error text: control characters escaped, long ones cut."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
