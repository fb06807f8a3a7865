"""A walk over every message of a model file, at any depth, and the rules for every text in it.

The walk follows the protobuf descriptors, not a list of places: initializers, sparse initializers, attributes,
subgraphs, functions, training information and whatever a later release of the format adds are all reached.
"""

import re
from collections.abc import Iterator, Sequence

import onnx
from google.protobuf.message import Message

from gateway.serving.model_policy import InvalidModel, Policy, shown

# C0 and C1 controls, and the marks that reorder or hide text on a terminal.
_CONTROL = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
_IN_NAMES = re.compile(f"[{_CONTROL}\\t\\n\\r]")
_IN_TEXTS = re.compile(f"[{_CONTROL}]")


def messages(root: Message) -> Iterator[Message]:
    """Yields `root` and every message below it, except those inside tensors (see `gateway.serving.weights`)."""
    pending = [root]
    while pending:
        message = pending.pop()
        yield message
        if isinstance(message, onnx.TensorProto):
            continue
        for field, value in message.ListFields():
            if field.message_type is None:
                continue
            pending.extend(value if field.is_repeated else (value,))


def check_texts(message: Message, policy: Policy) -> None:
    """Checks that all texts of this one message are within the length limit and free of control characters.

    Raises: InvalidModel.
    """
    kind = message.DESCRIPTOR.name
    if isinstance(message, onnx.TensorProto):
        _check_name(message.name, "tensor name", policy)
        _check_text(message.doc_string, "doc_string of a tensor", policy)
        for entry in message.metadata_props:
            check_texts(entry, policy)
        return
    if isinstance(message, onnx.StringStringEntryProto):
        _check_name(message.key, "metadata key", policy)
        _check_text(message.value, "metadata value", policy)
        return
    for field, value in message.ListFields():
        if field.type != field.TYPE_STRING:
            continue
        label = f"{field.name} in {kind.removesuffix('Proto')}"
        check = _check_text if field.name == "doc_string" else _check_name
        for text in value if field.is_repeated else (value,):
            check(text, label, policy)


def _check_name(text: str | bytes, label: str, policy: Policy) -> None:
    _check(text, label, _IN_NAMES, policy.max_name_length)


def _check_text(text: str | bytes, label: str, policy: Policy) -> None:
    _check(text, label, _IN_TEXTS, policy.max_text_length)


def _check(text: str | bytes, label: str, forbidden: re.Pattern[str], limit: int) -> None:
    # protobuf hands out bytes where a text of this format is not UTF-8.
    if isinstance(text, bytes):
        raise InvalidModel(f"{label} is not UTF-8: {shown(text)}")
    if len(text) > limit:
        raise InvalidModel(f"{label} has {len(text)} characters, at most {limit} are allowed")
    match = forbidden.search(text)
    if match is not None:
        raise InvalidModel(f"{label} holds the control character U+{ord(match[0]):04X}: {shown(text)}")


def nodes(own: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yields these nodes and those of their subgraphs."""
    for node in own:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g.node)
            for graph in attribute.graphs:
                yield from nodes(graph.node)
