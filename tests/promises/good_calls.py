"""The call after a bad one, which is answered right."""

from tests.rpc.raw import RawClient, message, request_headers


async def answered(client: RawClient, method: str = "EchoNow") -> bool:
    fields, body = await client.answer(await client.request(request_headers(method), message(b"good")))
    return fields[b"grpc-status"] == b"0" and body == message(b"good")
