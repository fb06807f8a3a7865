"""The client for programs on an asyncio loop."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import cycle
from typing import Self, Unpack

import grpc
import grpc.aio

from gateway.client.answer import Answer, JoinedAnswers
from gateway.client.call_error import CallError, error_of_rpc
from gateway.client.client_settings import (
    LOCAL,
    ClientOptions,
    ClientSettings,
    InferOptions,
    StreamOptions,
)
from gateway.client.explanation_steps import RouteExplanation, explanation_of
from gateway.client.feedback_items import Truth, feedback_items
from gateway.client.inference_call import InferenceCall, Inputs, answer_of
from gateway.client.streamed import streamed_outcome
from gateway.pb import control_pb2, control_pb2_grpc, inference_pb2_grpc
from gateway.pb import inference_pb2 as pb
from gateway.tensor import Array


class AsyncClient:
    """Is `Client` with coroutines: the same arguments, answers and errors. Calls over REST run on threads.

    Order: it is made on the loop that it is used on.
    """

    def __init__(self, server: str | Sequence[str] = LOCAL, **options: Unpack[ClientOptions]) -> None:
        self._settings = ClientSettings(server, **options)
        target = self._settings.target
        credentials, address, arguments = target.credentials(), target.address(), target.options()
        self._channels = [
            grpc.aio.insecure_channel(address, arguments)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, arguments)
            for _ in range(target.connections)
        ]
        self._stubs = cycle([inference_pb2_grpc.GRPCInferenceServiceStub(one) for one in self._channels])  # type: ignore[no-untyped-call]
        self._control = control_pb2_grpc.ControlStub(self._channels[0])  # type: ignore[no-untyped-call]
        self._over_rest: bool | None = None if self._settings.rest is not None else False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connections and the calls on them."""
        await asyncio.gather(*(channel.close(None) for channel in self._channels))
        if self._settings.rest is not None:
            self._settings.rest.close()

    async def infer(self, model: str, inputs: Inputs, **options: Unpack[InferOptions]) -> Answer:
        """Returns the model's answer, as `Client.infer` does. Raises: CallError, TypeError."""
        call = self._settings.call(model, inputs, options)
        return await self._infer(call, options.get("timeout_s"))

    async def infer_rows(
        self,
        model: str,
        inputs: Inputs,
        *,
        rows_per_call: int = 256,
        concurrency: int = 8,
        **options: Unpack[InferOptions],
    ) -> JoinedAnswers:
        """Returns the answers to many rows, as `Client.infer_rows` does. Raises: CallError, ValueError."""
        call = self._settings.call(model, inputs, options)
        slots = asyncio.Semaphore(max(1, concurrency))

        async def answered(part: InferenceCall) -> Answer:
            async with slots:
                return await self._infer(part, options.get("timeout_s"))

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(answered(part)) for part in call.in_parts(rows_per_call)]
        except* CallError as errors:
            raise errors.exceptions[0] from None
        return JoinedAnswers(tuple(task.result() for task in tasks))

    async def stream(
        self, model: str, requests: Iterable[Inputs] | AsyncIterator[Inputs], **options: Unpack[StreamOptions]
    ) -> AsyncIterator[Answer | CallError]:
        """Yields the answer or the error of each request, as `Client.stream` does. Raises: CallError."""

        async def messages() -> AsyncIterator[pb.ModelInferRequest]:
            async for inputs in _each(requests):
                yield self._settings.call(model, inputs, options).message()

        answers = next(self._stubs).ModelStreamInfer(
            messages(), metadata=self._settings.headers(options), timeout=options.get("timeout_s")
        )
        try:
            async for answer in answers:
                yield streamed_outcome(answer)
        except grpc.RpcError as error:
            raise error_of_rpc(error) from None
        finally:
            answers.cancel()

    async def feedback(
        self,
        answer: Answer,
        label: Truth | Sequence[Truth] | Array | None = None,
        *,
        reward: float | Sequence[float] | None = None,
        row: int = 0,
        time: datetime | None = None,
        source: str = "",
        timeout_s: float | None = None,
    ) -> int:
        """Returns how many labels or rewards were accepted, as `Client.feedback`. Raises: CallError, ValueError."""
        items = feedback_items(answer, label=label, reward=reward, row=row, time=time, source=source)
        request = control_pb2.SendFeedbackRequest(items=items)
        try:
            accepted = await self._control.SendFeedback(request, **self._settings.options_of(timeout_s))
        except grpc.RpcError as error:
            raise error_of_rpc(error) from None
        return int(accepted.accepted)

    async def explain(
        self, model: str, *, key: str = "", metadata: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> RouteExplanation:
        """Returns where a request with this key would go, and why. Nothing runs. Raises: CallError."""
        request = control_pb2.ExplainRequest(model=model, key=key, metadata=metadata or {})
        try:
            response = await self._control.Explain(request, **self._settings.options_of(timeout_s))
        except grpc.RpcError as error:
            raise error_of_rpc(error) from None
        return explanation_of(response)

    async def is_ready(self, model: str = "", version: str = "", *, timeout_s: float | None = None) -> bool:
        """Returns whether the server, or the model, can answer; False as well where nobody could be asked."""
        limit_s = self._settings.limit(timeout_s)
        try:
            if await self._uses_rest() and self._settings.rest is not None:
                return await asyncio.to_thread(self._settings.rest.is_ready, model, version, limit_s)
            options = self._settings.options_of(timeout_s) | {"wait_for_ready": False}
            stub = next(self._stubs)
            if not model:
                return bool((await stub.ServerReady(pb.ServerReadyRequest(), **options)).ready)
            return bool((await stub.ModelReady(pb.ModelReadyRequest(name=model, version=version), **options)).ready)
        except (grpc.RpcError, CallError):
            return False

    async def _infer(self, call: InferenceCall, timeout_s: float | None) -> Answer:
        limit_s = self._settings.limit(timeout_s)
        if await self._uses_rest() and self._settings.rest is not None:
            return await asyncio.to_thread(self._settings.rest.infer, call, limit_s)
        ongoing = next(self._stubs).ModelInfer(call.message(), metadata=call.metadata, timeout=limit_s)
        try:
            response = await ongoing
            trailers = await ongoing.trailing_metadata()
        except grpc.RpcError as error:
            raise error_of_rpc(error) from None
        return answer_of(response, trailers or ())

    async def _uses_rest(self) -> bool:
        if self._over_rest is None:
            try:
                await asyncio.wait_for(self._channels[0].channel_ready(), self._settings.connect_s)
                self._over_rest = False
            except TimeoutError:
                self._over_rest = True
        return self._over_rest


async def _each(requests: Iterable[Inputs] | AsyncIterator[Inputs]) -> AsyncIterator[Inputs]:
    if isinstance(requests, AsyncIterator):
        async for inputs in requests:
            yield inputs
    else:
        for inputs in requests:
            yield inputs
