"""The JSON of a request, parsed within limits: the parser holds the loop, so what it may cost is known beforehand."""

from typing import Any, Final

import orjson

from gateway.errors import InvalidArgument, ResourceExhausted

MAX_JSON_BYTES: Final = 4 << 20
MAX_LISTS: Final = 1 << 16  # a list or an object costs as much as dozens of numbers: 4 MiB of them would take a second
_REMEDY: Final = "send large tensors in binary (docs/rest.md)"


def check_size(size: int) -> None:
    """Checks that JSON of so many bytes is read. Raises: ResourceExhausted."""
    if size > MAX_JSON_BYTES:
        raise ResourceExhausted(
            f"the request has {size} bytes of JSON, at most {MAX_JSON_BYTES} are read: {_REMEDY}", retry_after_ms=-1
        )


def read_json(text: bytes) -> Any:
    """Returns the value of the text.

    Raises: InvalidArgument (it is no JSON), ResourceExhausted (it is too long, or has too many lists and objects).
    """
    size = len(text)
    check_size(size)
    if size > 2 * MAX_LISTS:  # each has a bracket at both ends
        count = text.count(b"[") + text.count(b"{")  # those in texts as well: to tell them apart costs too much
        if count > MAX_LISTS:
            raise ResourceExhausted(
                f"the request has {count} opening brackets in its JSON, at most {MAX_LISTS} are read: send flat data, "
                f"or {_REMEDY}",
                retry_after_ms=-1,
            )
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"failed to parse the request JSON buffer: {error}") from None


def read_object(text: bytes | memoryview) -> dict[str, Any]:
    """Returns the JSON object of a body, an empty one for no body. Raises: as `read_json`."""
    if not len(text):
        return {}
    check_size(len(text))  # before it is copied
    given = read_json(text if isinstance(text, bytes) else bytes(text))
    if not isinstance(given, dict):
        raise InvalidArgument("the request JSON is not an object")
    return given
