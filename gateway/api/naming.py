"""Names that clients send: models, versions, request ids. What passes is safe in keys, file names and log lines."""

import re

from gateway.errors import InvalidArgument

MAX_ID = 256
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# A label starts with a letter, or with a number and a separator (1.2.0, 2024-01-31): 1e3 and -1 are neither.
_LABEL = re.compile(r"(?:[A-Za-z]|[0-9]+[._-])[A-Za-z0-9._-]*")
_MAX_VERSION = 64
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,18})")
_SHOWN = 64


def shown(text: str) -> str:
    """Returns the text quoted for an error message: control characters escaped, cut after 64 characters."""
    return ascii(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!a}... ({len(text)} characters)"


def check_model_name(name: str) -> None:
    """Checks that the name is one that a model can have.

    Raises: InvalidArgument.
    """
    if not name:
        raise InvalidArgument("model_name is empty: name the model to run")
    if _NAME.fullmatch(name) is None:
        raise InvalidArgument(
            f"model_name {shown(name)} is not a model name: 1 to 128 of A-Z a-z 0-9 . _ -, "
            "the first a letter or a digit"
        )


def check_version(version: str) -> None:
    """Checks that the version is empty (any), a number or a label.

    Raises: InvalidArgument.
    """
    if not version:
        return
    label = len(version) <= _MAX_VERSION and _LABEL.fullmatch(version) is not None
    if not label and (_NUMBER.fullmatch(version) is None or int(version) >= 1 << 63):
        raise InvalidArgument(
            f"failed to get model version from specified version string {shown(version)}: "
            "a number below 2^63 or a label of letters, digits and ._- is expected"
        )


def check_request_id(request_id: str) -> None:
    """Checks that the id can be logged and echoed as it is.

    Raises: InvalidArgument.
    """
    if len(request_id) > MAX_ID:
        raise InvalidArgument(f"the request id has {len(request_id)} characters, the limit is {MAX_ID}")
    if not request_id.isprintable():
        raise InvalidArgument(f"the request id {shown(request_id)} has characters that cannot be printed")
