"""The client for programs that wait for each answer; it may be used by several threads at once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import cycle
from typing import Self, Unpack

import grpc

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


class Client:
    """Calls a gateway over gRPC, or over REST; `ClientOptions` says what it may be given.

    `server` is host:port; a list of them, or one name with many addresses, is balanced by the load that the hosts
    report. Calls that end as UNAVAILABLE are repeated by themselves, up to four times, within the call's time.

    Raises: ValueError (addresses, files, a token in plain text), OSError (a file of TLS).
    """

    def __init__(self, server: str | Sequence[str] = LOCAL, **options: Unpack[ClientOptions]) -> None:
        self._settings = ClientSettings(server, **options)
        target = self._settings.target
        credentials, address, arguments = target.credentials(), target.address(), target.options()
        self._channels = [
            grpc.insecure_channel(address, arguments)
            if credentials is None
            else grpc.secure_channel(address, credentials, arguments)
            for _ in range(target.connections)
        ]
        self._stubs = cycle([inference_pb2_grpc.GRPCInferenceServiceStub(one) for one in self._channels])  # type: ignore[no-untyped-call]
        self._control = control_pb2_grpc.ControlStub(self._channels[0])  # type: ignore[no-untyped-call]
        self._over_rest: bool | None = None if self._settings.rest is not None else False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections and the calls on them."""
        for channel in self._channels:
            channel.close()
        if self._settings.rest is not None:
            self._settings.rest.close()

    def infer(self, model: str, inputs: Inputs, **options: Unpack[InferOptions]) -> Answer:
        """Returns the model's answer. The same `key` gets the same version as long as the route gives it that.

        Raises: CallError; TypeError (an input that no tensor can be made of).
        """
        call = self._settings.call(model, inputs, options)
        return self._infer(call, options.get("timeout_s"))

    def infer_rows(
        self,
        model: str,
        inputs: Inputs,
        *,
        rows_per_call: int = 256,
        concurrency: int = 8,
        **options: Unpack[InferOptions],
    ) -> JoinedAnswers:
        """Returns the answers to many rows, sent in several calls, `concurrency` of them at a time.

        Raises: CallError (the first one; the calls that were sent are still answered by the server), ValueError.
        """
        call = self._settings.call(model, inputs, options)
        parts = list(call.in_parts(rows_per_call))
        with ThreadPoolExecutor(max(1, min(concurrency, len(parts)))) as pool:
            try:
                return JoinedAnswers(tuple(pool.map(lambda part: self._infer(part, options.get("timeout_s")), parts)))
            except CallError:
                pool.shutdown(cancel_futures=True)
                raise

    def stream(
        self, model: str, requests: Iterable[Inputs], **options: Unpack[StreamOptions]
    ) -> Iterator[Answer | CallError]:
        """Yields the answer to each request on one stream, in their order; where one is refused, its error.

        Without `timeout_s` the stream has no limit. Raises: CallError (the stream itself ended).
        """
        messages = (self._settings.call(model, inputs, options).message() for inputs in requests)
        answers = next(self._stubs).ModelStreamInfer(
            messages, metadata=self._settings.headers(options), timeout=options.get("timeout_s")
        )
        try:
            for answer in answers:
                yield streamed_outcome(answer)
        except grpc.RpcError as error:
            raise error_of_rpc(error) from None
        finally:
            answers.cancel()

    def feedback(
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
        """Returns how many labels or rewards were accepted: they are on the server's disk. Twice counts once.

        A list has one for each row, from `row` on. `time` is when it became true; None: now.
        Raises: CallError, ValueError.
        """
        items = feedback_items(answer, label=label, reward=reward, row=row, time=time, source=source)
        request = control_pb2.SendFeedbackRequest(items=items)
        try:
            accepted = self._control.SendFeedback(request, **self._settings.options_of(timeout_s))
        except grpc.RpcError as error:
            raise error_of_rpc(error) from None
        return int(accepted.accepted)

    def explain(
        self, model: str, *, key: str = "", metadata: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> RouteExplanation:
        """Returns where a request with this key would go, and why. Nothing runs. Raises: CallError."""
        request = control_pb2.ExplainRequest(model=model, key=key, metadata=metadata or {})
        try:
            response = self._control.Explain(request, **self._settings.options_of(timeout_s))
        except grpc.RpcError as error:
            raise error_of_rpc(error) from None
        return explanation_of(response)

    def is_ready(self, model: str = "", version: str = "", *, timeout_s: float | None = None) -> bool:
        """Returns whether the server, or the model, can answer; False as well where nobody could be asked."""
        try:
            if self._uses_rest() and self._settings.rest is not None:
                return self._settings.rest.is_ready(model, version, self._settings.limit(timeout_s))
            options = self._settings.options_of(timeout_s) | {"wait_for_ready": False}
            stub = next(self._stubs)
            if not model:
                return bool(stub.ServerReady(pb.ServerReadyRequest(), **options).ready)
            return bool(stub.ModelReady(pb.ModelReadyRequest(name=model, version=version), **options).ready)
        except (grpc.RpcError, CallError):
            return False

    def _infer(self, call: InferenceCall, timeout_s: float | None) -> Answer:
        limit_s = self._settings.limit(timeout_s)
        if self._uses_rest() and self._settings.rest is not None:
            return self._settings.rest.infer(call, limit_s)
        try:
            response, ended = next(self._stubs).ModelInfer.with_call(
                call.message(), metadata=call.metadata, timeout=limit_s
            )
        except grpc.RpcError as error:
            raise error_of_rpc(error) from None
        return answer_of(response, ended.trailing_metadata() or ())

    def _uses_rest(self) -> bool:
        """Decides once, at the first call: gRPC where it connects in time, else REST."""
        if self._over_rest is None:
            ready = grpc.channel_ready_future(self._channels[0])
            try:
                ready.result(self._settings.connect_s)
                self._over_rest = False
            except grpc.FutureTimeoutError:
                ready.cancel()
                self._over_rest = True
        return self._over_rest
