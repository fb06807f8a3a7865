"""The first inputs of each target: what users really send and write. `python -m tests.fuzz.seeds` writes them anew."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gateway.pb import inference_pb2 as pb
from gateway.records.worker.frame import Frame, scan
from gateway.records.worker.segment import entries
from gateway.tensor import Datatype
from tests.fuzz.targets import TARGETS, rest_seeds
from tests.records.traffic import append, open_log, open_stream
from tests.rpc.raw import DATA, HEADERS, PING, PRIORITY, RST_STREAM, WINDOW_UPDATE, message, raw_frame, request_headers

CORPUS = Path(__file__).parent / "corpus"
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def segment_bodies() -> list[bytes]:
    """The bodies of the frames of a real segment."""

    async def write(directory: Path) -> None:
        log = open_log(directory)
        stream = open_stream(log)
        for number in range(3):
            append(stream, f"r{number}", rows=number + 1, code=13 if number == 2 else 0)
        await log.close()

    with tempfile.TemporaryDirectory() as name:
        asyncio.run(write(Path(name)))
        (entry,) = entries(Path(name))
        assert entry.segment is not None
        data = entry.path.read_bytes()
        return [bytes(part.body) for part in scan(data, seed=entry.segment.seed) if isinstance(part, Frame)]


def _requests() -> Iterator[bytes]:
    raw = pb.ModelInferRequest(model_name="m", model_version="1", id="a", raw_input_contents=[bytes(16)])
    raw.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    raw.outputs.add(name="y").parameters["classification"].int64_param = 2
    raw.parameters["timeout"].int64_param = 1000
    yield b"\0" + raw.SerializeToString()
    typed = pb.ModelInferRequest(model_name="m")
    contents = pb.InferTensorContents(fp32_contents=[1, 2, 3, 4])
    typed.inputs.add(name="x", datatype="FP32", shape=[1, 4], contents=contents)
    yield b"\0" + typed.SerializeToString()
    for datatype, data in (
        (Datatype.BOOL, b"\1\0"),
        (Datatype.UINT8, b"ab"),
        (Datatype.BYTES, b"\1\0\0\0a" + bytes(4)),
    ):
        other = pb.ModelInferRequest(model_name="m", raw_input_contents=[data])
        other.inputs.add(name="x", datatype=datatype.wire_name, shape=[2])
        yield bytes((1 + list(Datatype).index(datatype),)) + other.SerializeToString()


def _documents() -> Iterator[bytes]:
    for path in sorted(EXAMPLES.glob("*.yaml")):
        yield b"\n".join(line for line in path.read_bytes().splitlines() if not line.lstrip().startswith(b"#"))
    head = b'{"apiVersion":"gateway/v1","kind":"Route","metadata":{"model":"m"},"spec":'
    yield head + b'{"arms":{"a":{"version":"1"}},"strategy":{"pinned":{"arm":"a"}}}}'


def _segments() -> Iterator[bytes]:
    bodies = segment_bodies()
    yield b"".join(len(body).to_bytes(2, "little") + body for body in bodies)


def _connections() -> Iterator[bytes]:
    def block(method: str, *more: tuple[bytes, bytes]) -> bytes:
        fields = request_headers(method, *more)
        return b"".join(b"\0" + bytes((len(k),)) + k + bytes((len(v),)) + v for k, v in fields)

    for method in ("EchoNow", "Echo", "Chat", "Total", "Hold", "Parse", "Count", "Missing"):
        head = raw_frame(HEADERS, 1, block(method), flags=4)
        body = raw_frame(DATA, 1, message(b"2 3"), flags=1)
        yield b"\0" + head + b"\xff\x00\xff" + body
    zipped = bytes.fromhex("1f8b08000000000000ffabac02003b6eaa1002000000")
    head = raw_frame(HEADERS, 1, block("EchoNow", (b"grpc-encoding", b"gzip"), (b"grpc-timeout", b"1S")), flags=4)
    yield b"\0" + head + raw_frame(DATA, 1, message(zipped, 1), flags=1) + raw_frame(RST_STREAM, 1, b"\0\0\0\x08")
    control = raw_frame(PING, 0, b"12345678") + raw_frame(WINDOW_UPDATE, 0, b"\0\1\0\0")
    yield b"\0" + control + raw_frame(PRIORITY, 1, b"\0\0\0\0\1")
    yield b"\1GET / HTTP/1.1\r\n\r\n"


SEEDS = {"request": _requests, "rest": rest_seeds, "document": _documents, "log": _segments, "http2": _connections}


def write() -> None:
    """Writes every seed; what fuzzing has found and is kept beside them stays."""
    assert set(SEEDS) == set(TARGETS)
    for target, make in SEEDS.items():
        directory = CORPUS / target
        directory.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(make()):
            (directory / f"seed-{number}").write_bytes(data)


if __name__ == "__main__":
    write()
