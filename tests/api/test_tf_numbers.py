"""Our TensorFlow Serving messages have the names and numbers of those that its own package brings."""

import ast
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from gateway.pb import tensorflow_serving_pb2 as tfs

STUBS = Path(sys.prefix) / "tfserving" / "tensorflow_serving" / "apis"
# An enum there, with the numbers of gRPC's codes; and what is for decoders of languages.
OTHERS = {"error_code", "predict_streamed_options", "client_id", "request_options"}

Fields = dict[str, tuple[int, int, str]]


def fields(message: descriptor_pb2.DescriptorProto) -> Fields:
    return {
        one.name: (one.number, one.label, one.type_name or descriptor_pb2.FieldDescriptorProto.Type.Name(one.type))
        for one in message.field
        if one.name not in OTHERS
    }


def published() -> dict[str, descriptor_pb2.FileDescriptorProto]:
    """The descriptors in the stubs, which cannot be imported without TensorFlow."""
    made = {}
    for path in STUBS.glob("*_pb2.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "AddSerializedFile":
                file = descriptor_pb2.FileDescriptorProto.FromString(ast.literal_eval(node.args[0]))
                made[file.name] = file
    return made


@pytest.mark.skipif(not STUBS.exists(), reason="needs tensorflow-serving-api in the environment's folder tfserving")
def test_messages_and_methods_are_those_that_are_published() -> None:
    own = descriptor_pb2.FileDescriptorProto()
    tfs.DESCRIPTOR.CopyToProto(own)
    files = published().values()
    messages = {message.name: message for file in files for message in file.message_type}
    for message in own.message_type:
        assert fields(message) == fields(messages[message.name]), message.name
        theirs = {nested.name: nested for nested in messages[message.name].nested_type}
        for nested in message.nested_type:
            assert fields(nested) == fields(theirs[nested.name]), nested.name
        for enum, other in zip(message.enum_type, messages[message.name].enum_type, strict=True):
            assert enum == other
    services = {service.name: service for file in files for service in file.service}
    for service in own.service:
        ours = {method.name: (method.input_type, method.output_type) for method in service.method}
        theirs_of = {method.name: (method.input_type, method.output_type) for method in services[service.name].method}
        assert ours.items() <= theirs_of.items()
