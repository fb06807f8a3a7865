"""What every request runs through is compiled: seen on real requests, compared with the list in `setup.py`."""

import ast
import asyncio
import json
import runpy
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import pytest

from gateway.api.feedback_token import KEY_BYTES, Tokens
from gateway.routing.decision.route import propose
from gateway.routing.decision.snapshot import Snapshot
from tests import models
from tests.api.calls import good
from tests.api.routes import ab
from tests.api.stand import Stand, standing
from tests.rest.serving import post
from tests.rpc.raw import RawClient

REST_JSON = json.dumps(
    {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}],
        "parameters": {"binary_data_output": True},
    }
).encode()
REST_BODY = REST_JSON + bytes(16)
ROOT = Path(__file__).parents[1]
# Run in every request and stay interpreted: the servicer derives from generated code, which mypyc does not allow, and a
# request makes one dictionary look-up in the registry.
INTERPRETED = {"gateway/api/inference.py", "gateway/serving/registry.py"}
CALLS = 200  # so many that what runs twenty times a second does not come near, also where a call takes long


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The modules that `setup.py` compiles."""
    monkeypatch.setattr("setuptools.setup", lambda **_: None)
    return set(runpy.run_path(str(ROOT / "setup.py"))["MODULES"])


def test_each_module_that_is_to_be_compiled_exists(compiled: set[str]) -> None:
    assert not [module for module in compiled if not (ROOT / module).is_file()]


@pytest.mark.parametrize("by", ["gRPC", "REST on HTTP/1.1", "REST on HTTP/2"])
async def test_what_every_request_runs_through_is_compiled(tmp_path: Path, compiled: set[str], by: str) -> None:
    repository = tmp_path / "models"
    config = "max_batch_size: 64\ndynamic_batching {}\nversion_policy { all {} }"
    for version, slope in (("1", 2.0), ("2", 3.0)):
        models.write_version(repository, "affine", version, models.affine(slope), config=config)
    runs: Counter[tuple[str, str]] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            runs[frame.f_code.co_filename, frame.f_code.co_qualname] += 1

    tokens = Tokens(b"k" * KEY_BYTES)
    async with standing(repository, tmp_path, probes=tmp_path / "probes", tokens=tokens, rest=True) as stand:
        stand.rules.snapshot = Snapshot.of("tests", 1, (propose(ab(), None),))
        ask = {"gRPC": grpc_calls, "REST on HTTP/1.1": http1_calls, "REST on HTTP/2": http2_calls}[by]
        await asyncio.gather(*(ask(stand) for _ in range(4)))
        sys.setprofile(count)
        try:
            await asyncio.gather(*(ask(stand) for _ in range(4)))
        finally:
            sys.setprofile(None)
    every = {
        str(Path(name).relative_to(ROOT))
        for (name, _), calls in runs.items()
        if calls >= CALLS and Path(name).is_relative_to(ROOT / "gateway")
    }
    assert every, "no request was seen"
    assert every - compiled == INTERPRETED - ({"gateway/api/inference.py"} if by != "gRPC" else set())


async def grpc_calls(stand: Stand) -> None:
    for user in range(CALLS // 4):
        await stand.stub.ModelInfer(good(version=""), metadata=(("x-user-id", f"user-{user}"),))


async def http1_calls(stand: Stand) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stand.rest_port)
    for _ in range(CALLS // 4):
        writer.write(post("/v2/models/affine/infer", REST_BODY, f"Inference-Header-Content-Length: {len(REST_JSON)}"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))
    writer.close()
    await writer.wait_closed()


async def http2_calls(stand: Stand) -> None:
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/v2/models/affine/infer"),
        (b":authority", b"a"),
        (b"inference-header-content-length", b"%d" % len(REST_JSON)),
    ]
    async with RawClient(stand.rest_port) as client:
        for _ in range(CALLS // 4):
            seen, _ = await client.answer(await client.request(fields, REST_BODY))
            assert seen[b":status"] == b"200", seen
            client.events.clear()


# What macOS's sys/cdefs.h and clang define, with two underscores in front: so mypyc names the attribute `_block` in C.
MACROS = {
    *("abortlike", "alloca", "assert", "autoreleasing", "block", "bridge", "cold", "const", "dead", "deprecated"),
    *("exported", "fallthrough", "header_always_inline", "kindof", "nonnull", "not_tail_called", "nullable"),
    *("offsetof", "osloglike", "printflike", "pure", "restrict", "scanflike", "sealed", "signed", "single", "strong"),
    *("unavailable", "unsafe_unretained", "unused", "used", "volatile", "weak"),
}


def test_no_attribute_that_is_compiled_has_the_name_of_a_macro(compiled: set[str]) -> None:
    named: dict[str, set[str]] = {}
    for module in compiled:
        for node in ast.walk(ast.parse((ROOT / module).read_text())):
            if isinstance(node, ast.Attribute):
                named.setdefault(node.attr, set()).add(module)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                named.setdefault(node.target.id, set()).add(module)
    assert not {name: modules for name, modules in named.items() if name[:1] == "_" and name[1:] in MACROS}


def test_no_slice_that_is_compiled_has_a_bound_with_an_effect(compiled: set[str]) -> None:
    """mypyc computes a slice's bounds twice, unless it knows that what is sliced is a list, text or bytes."""
    wrong = [
        f"{module}:{bound.lineno}: {ast.unparse(bound)}"
        for module in sorted(compiled)
        for node in ast.walk(ast.parse((ROOT / module).read_text()))
        if isinstance(node, ast.Slice)
        for bound in (node.lower, node.upper, node.step)
        if bound is not None and any(map(_may_have_an_effect, ast.walk(bound)))
    ]
    assert not wrong


def _may_have_an_effect(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return not (isinstance(node.func, ast.Name) and node.func.id in {"len", "max", "min"})
    return isinstance(node, ast.Await | ast.NamedExpr | ast.Yield | ast.YieldFrom)
