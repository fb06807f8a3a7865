"""Intake of what became true of predictions: labels and rewards by feedback token, or by model and request id."""

import asyncio
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from time import time_ns

from gateway.access.permissions import RPCS
from gateway.access.principal import Principal
from gateway.api.feedback_token import Token, Tokens
from gateway.api.naming import check_model_name, check_request_id, shown
from gateway.api.route_messages import principal_of
from gateway.errors import GatewayError, InvalidArgument, NotFound
from gateway.pb import control_pb2 as pb
from gateway.records.lake.layout import has_model
from gateway.records.worker.feedback_log import FeedbackLog
from gateway.records.worker.label import MAX_SOURCE_BYTES, MAX_TEXT_BYTES, Label, request_hash
from gateway.serving.arm_tally import JudgedRoutes
from gateway.serving.catalog import Catalog

MAX_ITEMS = 1000  # of one call; more would keep the loop from serving for too long
AHEAD_US = 3_600_000_000  # a label time may lie so far in the future: clocks differ
_SLICE = 50  # items that are read between two turns of the loop
_ROWS = 1 << 31
_ROLES = RPCS["/gateway.v1.Control/SendFeedback"].roles


class FeedbackIntake:
    """Serves SendFeedback. `lake_dir` is the log in Parquet, which knows the models of the past.

    What is said of an answer by its token counts for the rollout that judges its route, `judged`.
    """

    def __init__(
        self, catalog: Catalog, labels: FeedbackLog, tokens: Tokens, lake_dir: Path, judged: JudgedRoutes
    ) -> None:
        self._judged = judged
        self._catalog = catalog
        self._labels = labels
        self._tokens = tokens
        self._lake_dir = lake_dir

    async def send(self, request: pb.SendFeedbackRequest, context: object) -> pb.SendFeedbackResponse:
        received_us = time_ns() // 1000
        try:
            read = await self._read(request, received_us, principal_of(context))
        except GatewayError:
            self._labels.counts["refused"] += len(request.items)
            raise
        await self._labels.write([label for label, _ in read])
        for label, token in read:
            if token is not None:
                self._count(label, token)
        return pb.SendFeedbackResponse(accepted=len(read), received_at_us=received_us)

    def _count(self, label: Label, token: Token) -> None:
        given = (("reward", label.reward), ("label", label.number))
        metrics = {metric: value for metric, value in given if value is not None}
        unit = label.request_hash + label.row_index
        self._judged.feed(token.model, token.revision, token.arm, unit, metrics)

    async def _read(
        self, request: pb.SendFeedbackRequest, received_us: int, principal: Principal
    ) -> list[tuple[Label, Token | None]]:
        if not 1 <= len(request.items) <= MAX_ITEMS:
            raise InvalidArgument(f"items has {len(request.items)} elements, allowed: 1 to {MAX_ITEMS}")
        labels: list[tuple[Label, Token | None]] = []
        for index, item in enumerate(request.items):
            try:
                labels.append(read_item(item, self._tokens, received_us, source=request.source))
            except InvalidArgument as error:
                raise InvalidArgument(f"items[{index}].{error}") from None
            if index % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        for model in {label.model for label, _ in labels}:
            principal.check(_ROLES, model)
        # Whom a token names has been served; a name that anybody may send must not become a folder of the lake.
        named = {item.model: index for index, item in enumerate(request.items) if not item.token}
        for model, index in named.items():
            if not self._catalog.states(model) and not await asyncio.to_thread(self._is_logged, model):
                raise NotFound(f"items[{index}].model: no model {model!r} is served or logged on this host")
        return labels

    def _is_logged(self, model: str) -> bool:
        return has_model(self._lake_dir, model)


def read_item(
    item: pb.FeedbackItem, tokens: Tokens, received_us: int, *, source: str = ""
) -> tuple[Label, Token | None]:
    """Returns the label that an item means, and what its token says; `source` is for an item that names none.

    Raises: InvalidArgument, whose text begins with the field.
    """
    model, token, hashed = _request_of(item, tokens)
    kind = item.WhichOneof("label")
    if kind is None and not item.HasField("reward"):
        raise InvalidArgument("label: neither number, text nor reward is given")
    if item.row_index < 0:
        raise InvalidArgument(f"row_index is {item.row_index}, allowed: 0 to {_ROWS - 1}")
    label = Label(
        model=model,
        request_hash=hashed,
        row_index=item.row_index,
        label_us=_label_time(item.label_time_us, received_us),
        received_us=received_us,
        request_id=item.request_id,
        version=token.version if token is not None else "",
        predicted_us=token.at_ms * 1000 if token is not None else 0,
        number=_finite("number", item.number) if kind == "number" else None,
        text=_short("text", item.text, MAX_TEXT_BYTES) if kind == "text" else None,
        reward=_finite("reward", item.reward) if item.HasField("reward") else None,
        source=_short("source", item.source or source, MAX_SOURCE_BYTES) if item.source or source else "",
    )
    return label, token


def _request_of(item: pb.FeedbackItem, tokens: Tokens) -> tuple[str, Token | None, int]:
    """Returns the model, what the token says (None without one), and the hash of the request's id."""
    if item.request_id:
        _named("request_id", check_request_id, item.request_id)
    if not item.token:
        _named("model", check_model_name, item.model)
        if not item.request_id:
            raise InvalidArgument("request_id is empty: name the request by it or by its feedback token")
        return item.model, None, request_hash(item.request_id)
    try:
        token = tokens.verify(item.token)
    except InvalidArgument as error:
        raise InvalidArgument(f"token: {error}") from None
    # What the token says is not told to somebody who could not say it.
    if item.model and item.model != token.model:
        raise InvalidArgument(f"model is {shown(item.model)}, the token is of another model")
    if item.request_id and not token.is_of(item.request_id):
        raise InvalidArgument(f"request_id is {shown(item.request_id)}, the token is of another request")
    return token.model, token, int.from_bytes(token.request_hash, "big")


def _named(field: str, check: Callable[[str], None], value: str) -> None:
    try:
        check(value)
    except InvalidArgument as error:
        raise InvalidArgument(f"{field}: {error}") from None


def _label_time(given_us: int, received_us: int) -> int:
    """Returns when the label became true; the moment of its receipt where it is not said."""
    if not 0 <= given_us <= received_us + AHEAD_US:
        raise InvalidArgument(
            f"label_time_us is {given_us}, allowed: 1 to {received_us + AHEAD_US} (an hour from now), "
            "microseconds since the epoch, or 0 for now"
        )
    return given_us or received_us


def _finite(field: str, value: float) -> float:
    if not isfinite(value):
        raise InvalidArgument(f"{field} is {value}, allowed: a finite number")
    return value


def _short(field: str, value: str, limit: int) -> str:
    size = len(value.encode())
    if not 1 <= size <= limit:
        raise InvalidArgument(f"{field} has {size} bytes, allowed: 1 to {limit}")
    return value
