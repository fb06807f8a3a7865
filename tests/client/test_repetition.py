"""Calls whose connection breaks are made again, however large they are."""

import asyncio
import sys

import grpc
import numpy as np
import pytest

from gateway.client import Client
from gateway.pb import inference_pb2 as pb
from gateway.rpc.ngh2_server import Ngh2Server
from gateway.rpc.server import ServerOptions
from tests.accepted_connections import accepting
from tests.machine_load import as_loaded


async def _infer(request: pb.ModelInferRequest, context: object) -> pb.ModelInferResponse:
    return pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter, most_bytes: int = sys.maxsize) -> None:
    passed = 0
    while passed < most_bytes and (data := await source.read(65536)):
        passed += len(data)
        target.write(data)
        await target.drain()


@pytest.mark.parametrize("size_bytes", [1_000, 100_000, 1_500_000])
async def test_a_call_whose_connection_breaks_is_made_again(size_bytes: int) -> None:
    """gRPC's clients by themselves repeat no call of more than 256 KiB."""
    server = Ngh2Server(ServerOptions(reuse_port=False))
    method = grpc.unary_unary_rpc_method_handler(
        _infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
    )
    server.add_registered_method_handlers("inference.GRPCInferenceService", {"ModelInfer": method})
    await server.start()
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        behind, ahead = await asyncio.open_connection("127.0.0.1", server.port)
        back = asyncio.create_task(_carry(behind, writer))
        try:
            await _carry(reader, ahead, size_bytes // 2 if connections == 1 else sys.maxsize)
        finally:
            back.cancel()
            ahead.transport.abort()
            writer.transport.abort()

    try:
        async with accepting(serve) as port:
            with Client(f"127.0.0.1:{port}") as client:
                inputs = {"x": np.zeros(size_bytes, np.uint8)}
                answer = await asyncio.to_thread(client.infer, "m", inputs, timeout_s=as_loaded(20.0))
        assert (answer.version, connections) == ("1", 2)
    finally:
        await server.stop(0)
