"""Which model, version and signature a request of TensorFlow Serving's protocol asks for: its ModelSpec.

Source: tensorflow_serving/apis/model.proto.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from gateway.api.naming import shown
from gateway.errors import InvalidArgument
from gateway.pb import tensorflow_serving_pb2 as tfs

DEFAULT_SIGNATURE: Final = "serving_default"
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")


class ModelChoice(NamedTuple):
    """Names a model and a version of it, "" for the one that its route chooses. A label is a version here."""

    model: str
    version: str
    signature: str


def choice_of(spec: tfs.ModelSpec, *signatures: str) -> ModelChoice:
    """Returns what the ModelSpec asks for; `signatures` are the names that it may give, beside none.

    Raises: InvalidArgument (another signature).
    """
    named = spec.signature_name or DEFAULT_SIGNATURE
    if named not in signatures:
        raise InvalidArgument(
            f"model_spec.signature_name is {shown(named)}: models here have {', '.join(signatures)}, or leave it empty"
        )
    version = str(spec.version.value) if spec.HasField("version") else spec.version_label
    return ModelChoice(spec.name, version, named)


@lru_cache(1024)
def read_choice(message: bytes) -> ModelChoice:
    """Returns what the serialized ModelSpec of a prediction asks for.

    Raises: InvalidArgument.
    """
    try:
        spec = tfs.ModelSpec.FromString(message)
    except DecodeError:
        raise InvalidArgument("model_spec: its bytes are not a ModelSpec") from None
    return choice_of(spec, DEFAULT_SIGNATURE)


def number_of(version: str) -> int | None:
    """Returns the version as TensorFlow Serving's clients know it; None for one that is no number."""
    value = int(version) if _NUMBER.fullmatch(version) else -1
    return value if 0 <= value < 1 << 63 else None


def spec_of(model: str, version: str, signature: str = DEFAULT_SIGNATURE) -> tfs.ModelSpec:
    """Returns the ModelSpec that an answer names. A version that is no number is left out."""
    spec = tfs.ModelSpec(name=model, signature_name=signature)
    if (number := number_of(version)) is not None:
        spec.version.value = number
    return spec
