"""What is fuzzed: each target takes any bytes, and raises where they show a defect of ours."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from google.protobuf.message import DecodeError

from gateway.api.decode import decode, read_header
from gateway.api.element import first_element
from gateway.api.parameters import read_request
from gateway.api.signature import Signature
from gateway.api.template import decode_query
from gateway.api.unread_tensor import read_all
from gateway.api.wire import LARGE_BYTES, leading_names, parse
from gateway.errors import GatewayError, InvalidArgument, Unimplemented
from gateway.pb import inference_pb2 as pb
from gateway.records.worker.frame import frame
from gateway.records.worker.reading import read
from gateway.records.worker.segment import Segment
from gateway.rest.infer_body import InferBodies
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.notation import parse_json, parse_yaml
from gateway.rpc.connection import Connection
from gateway.rpc.method import MethodTable
from gateway.rpc.server import ServerOptions
from gateway.rpc.server_state import ServerState
from gateway.tensor import Datatype
from tests.api.requests import bytes_of, one, rows_of_four
from tests.rpc.raw import PREFACE, SETTINGS, raw_frame
from tests.rpc.service import NAME, Behaviour, handlers

Target = Callable[[bytes], None]


# ---- the request decoder ----

SIGNATURES: Final = (rows_of_four(), *(one(datatype) for datatype in Datatype), *(one(d, (2, -1)) for d in Datatype))


def request(data: bytes) -> None:
    """The first byte chooses the model's contract; the rest is the message."""
    contract, message = SIGNATURES[data[0] % len(SIGNATURES)] if data else SIGNATURES[0], data[1:]
    leading_names(message)
    try:
        parsed, raw, packed = parse(message)
    except InvalidArgument:
        return
    _same_when_large(message, parsed)
    for tensor in parsed.inputs[:4]:
        first_element(parsed, raw, packed, tensor.name)
    for step in (lambda: read_header(parsed, raw), lambda: read_request(parsed)):
        try:
            step()
        except (InvalidArgument, Unimplemented) as error:
            _check_text(error)
    try:
        inputs, shapes, rows, _ = decode(parsed, raw, contract)
    except (InvalidArgument, Unimplemented) as error:
        _check_text(error)
        return
    assert rows >= 0
    for given, shape, spec in zip(read_all(inputs), shapes, contract.inputs, strict=True):
        if given is not None and shape is not None and spec.datatype is not Datatype.BYTES:
            size = spec.datatype.size
            for dimension in shape:
                size *= dimension
            held: Any = given
            assert memoryview(held).nbytes == size, shape


def rest(data: bytes) -> None:
    """Byte 0 chooses the contract, bytes 1 and 2 say where the JSON ends (65535: with the body), which follows."""
    contract, body = SIGNATURES[data[0] % len(SIGNATURES)] if data else SIGNATURES[0], data[3:]
    size = int.from_bytes(data[1:3], "big")
    json_size = -1 if size == 0xFFFF else size
    new, taught = InferBodies(), _taught()
    expected = _read_body(new, body, json_size, contract)
    # What is kept of earlier requests, of this one or of others, changes nothing.
    assert _read_body(taught, body, json_size, contract) == expected
    assert _read_body(new, body, json_size, contract, keep=True) == expected
    assert _read_body(new, body, json_size, contract) == expected


def _read_body(bodies: InferBodies, body: bytes, json_size: int, contract: Signature, *, keep: bool = False) -> object:
    """Returns everything that the body says to the contract, or its refusal."""
    try:
        written = bodies.read("m", "", body, json_size)
        inputs, shapes, rows, reply = decode_query(written.query, written.raw, contract)
    except (InvalidArgument, Unimplemented) as error:
        _check_text(error)
        return str(error)
    if keep:
        bodies.keep(written)
    data = [
        bytes(one) if isinstance(one, bytes | memoryview) else None if one is None else one.tolist()
        for one in read_all(inputs)
    ]
    return written.request_id, written.query.parameters, written.form, data, list(shapes), rows, reply.wanted


@cache
def _taught() -> InferBodies:
    """Holds what good requests said."""
    bodies = InferBodies()
    for data in rest_seeds():
        size = int.from_bytes(data[1:3], "big")
        _read_body(bodies, data[3:], -1 if size == 0xFFFF else size, SIGNATURES[data[0]], keep=True)
    return bodies


def rest_seeds() -> Iterator[bytes]:
    """Requests by REST that are served."""
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32"}
    more = {
        "parameters": {"timeout": 1000, "own": "a"},
        "outputs": [{"name": "y", "parameters": {"classification": 1}}],
    }
    for given in ({}, {"id": "a"}, more):
        written = json.dumps({**given, "inputs": [{**tensor, "data": [1, 2.5, 3, 4]}]}).encode()
        yield b"\0\xff\xff" + written
        sized = {**tensor, "parameters": {"binary_data_size": 16}}
        written = json.dumps({**given, "inputs": [sized]}, separators=(",", ":")).encode()
        yield b"\0" + len(written).to_bytes(2, "big") + written + bytes(16)
    for datatype, values in (
        (Datatype.BOOL, [True, False]),
        (Datatype.BYTES, ["a", ""]),
        (Datatype.UINT64, [0, 2**64 - 1]),
    ):
        tensor = {"name": "x", "shape": [2], "datatype": datatype.wire_name, "data": values}
        yield bytes((1 + list(Datatype).index(datatype), 0xFF, 0xFF)) + json.dumps({"inputs": [tensor]}).encode()


def _same_when_large(message: bytes, parsed: pb.ModelInferRequest) -> None:
    """Large messages are taken apart by code of ours: with a long tensor behind it the request must read the same."""
    tail = pb.ModelInferRequest(raw_input_contents=[bytes(LARGE_BYTES)]).SerializeToString()
    try:
        expected = pb.ModelInferRequest.FromString(message + tail)
    except DecodeError:
        return
    again, raw, _ = parse(message + tail)
    assert [bytes_of(one) for one in raw] == list(expected.raw_input_contents)
    again = pb.ModelInferRequest.FromString(again.SerializeToString())  # as protobuf orders it
    del again.raw_input_contents[:]
    del expected.raw_input_contents[:]
    assert again.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
    assert again.model_name == parsed.model_name


def _check_text(error: GatewayError) -> None:
    text = str(error)
    assert text.isprintable(), text
    assert len(text) < 2000, len(text)


# ---- the document decoder ----


def document(data: bytes) -> None:
    readers: tuple[Callable[[], list[RouteDocument]], ...] = (lambda: [parse_json(data)], lambda: parse_yaml(data))
    for take in readers:
        try:
            documents = take()
        except InvalidArgument as error:
            _check_text(error)
            continue
        for one_of_them in documents:
            assert parse_json(one_of_them.to_json()) == one_of_them


# ---- the log reader ----

SEGMENT: Final = Segment("gw", "w0", UUID(int=7).hex, 1)


def log(data: bytes) -> None:
    """Reads the bytes as a segment, and as bodies of frames (two bytes of length before each) whose checksums hold."""
    _read(data)
    _read(b"".join(frame(body, seed=SEGMENT.seed) for body in bodies(data)))


def bodies(data: bytes) -> Iterator[bytes]:
    position = 0
    while position + 2 < len(data):
        end = position + 2 + int.from_bytes(data[position : position + 2], "little")
        if body := data[position + 2 : end]:
            yield body
        position = end


def _read(data: bytes) -> None:
    content = read(data, SEGMENT)
    for block in content.blocks():
        for column in (*block.inputs, *block.outputs):
            for record in range(min(len(block.table), 4)):
                column.shape(record)
                column.elements(record, 4)
    for _, reason in content.damages:
        assert reason.isprintable()


# ---- the HTTP/2 front ----


class Wire(asyncio.Transport):
    """A transport in memory: what is written is counted and gone."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._closing = False
        self.written = 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += len(data)

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """What comes afterwards is still handed over."""

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            self._connection.server.loop.call_soon(self._connection.connection_lost, None)


class Front:
    """One server's state on a loop of its own; every input is one connection."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.complaints: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))
        methods = MethodTable()
        self.behaviour = Behaviour()
        methods.register(NAME, handlers(self.behaviour))
        options = ServerOptions(reuse_port=False, max_receive_bytes=1 << 16, max_inflight_bytes=1 << 20, busy_poll_us=0)
        self.state = ServerState(options, methods, self.loop)

    async def serve(self, chunks: list[bytes]) -> None:
        connection = Connection(self.state)
        wire = Wire(connection)
        connection.connection_made(wire)
        for chunk in chunks:
            if wire.is_closing():
                break
            buffer = connection.get_buffer(len(chunk))
            chunk = chunk[: len(buffer)]
            buffer[: len(chunk)] = chunk
            connection.buffer_updated(len(chunk))
            await _turns()
        wire.abort()
        await _turns()
        if self.state.tasks:
            await asyncio.wait(set(self.state.tasks), timeout=10)
        self.behaviour.held.clear()
        await _turns()
        assert not self.complaints, self.complaints
        state = self.state
        assert (state.open_calls, len(state.connections), len(state.tasks)) == (0, 0, 0)
        assert state.received.free_bytes == state.received.size_bytes
        assert state.unsent.free_bytes == state.unsent.size_bytes


async def _turns() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


_front: list[Front] = []


def http2(data: bytes) -> None:
    """A connection's bytes; `\\xff\\x00\\xff` begins another read. If the first byte is even, a preface goes before."""
    if not _front:
        _front.append(Front())
    chunks = data[1:].split(b"\xff\x00\xff")
    if not data[:1] or not data[0] & 1:
        chunks[0] = PREFACE + raw_frame(SETTINGS) + chunks[0]
    _front[0].loop.run_until_complete(_front[0].serve(chunks))


TARGETS: Final[Mapping[str, Target]] = MappingProxyType(
    {"request": request, "rest": rest, "document": document, "log": log, "http2": http2}
)
