"""A bandit's change of weights as the audit trail has it, and the same decided again from what is recorded. Pure."""

import base64
import zlib
from typing import Any, Final

import msgspec

from gateway.errors import InvalidArgument
from gateway.rollout.bandit_decision import decided
from gateway.rollout.bandit_record import BanditRecord
from gateway.rollout.bandit_weights import NewWeights
from gateway.rollout.recorded_verdict import STATE_BYTES, shortened
from gateway.routing.document.field import Field
from gateway.routing.document.quantity import percent_text
from gateway.routing.document.strategy import Ab, parse_strategy
from gateway.routing.store.audit_chain import carries_verdict

FORM: Final = 1


class WeightsState(msgspec.Struct, frozen=True):
    """All that the judge decided by. Units: milliseconds since the epoch, by the store's clock."""

    plan: dict[str, Any]
    record: BanditRecord
    now_ms: int


class RecordedWeights(msgspec.Struct, frozen=True):
    """What an audit entry carries of a change of weights. `document` is the SHA-256 of the route that was judged, at
    `revision`; `rewards` are those of the weights before, by arm; `state` is a WeightsState: MessagePack, deflated, in
    base64."""

    form: int
    bandit: str
    revision: int
    document: str
    weights: dict[str, str]
    rewards: dict[str, int]
    state: str


def recorded_weights(record: BanditRecord, test: Ab, step: NewWeights, now_ms: int, document: str) -> str:
    """Returns what the audit entry of this change carries: a RecordedWeights as JSON."""
    state = msgspec.msgpack.encode(WeightsState(test.to_value(), record, now_ms))
    made = RecordedWeights(
        FORM,
        record.id,
        record.revision,
        document,
        {arm: percent_text(weight) for arm, weight in step.weights.items()},
        record.evidence.rewards,
        base64.b64encode(zlib.compress(state, 9)).decode(),
    )
    return msgspec.json.encode(made).decode()


def weights_in(detail: str) -> RecordedWeights | None:
    """Returns the change of weights that an audit entry's detail is; None where it is none."""
    if not carries_verdict(detail):
        return None
    try:
        return msgspec.json.decode(detail, type=RecordedWeights)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def weights_again(recorded: RecordedWeights, reason: str) -> tuple[str, ...]:
    """Returns what is wrong with a change of weights, decided again; `reason` is the audit entry's."""
    try:
        inflater = zlib.decompressobj()
        content = inflater.decompress(base64.b64decode(recorded.state, validate=True), STATE_BYTES)
        if inflater.unconsumed_tail:
            raise ValueError(f"it has more than {STATE_BYTES} bytes")
        held = msgspec.msgpack.decode(content, type=WeightsState)
        arms = dict.fromkeys(map(str, held.plan.get("weights", {})))
        test = parse_strategy(Field({Ab.name: held.plan}, "plan"), arms)
        if not isinstance(test, Ab) or test.bandit is None:
            raise TypeError("the plan is no bandit")
        step = decided(held.record, test, test.bandit, held.now_ms)
    except (ValueError, TypeError, zlib.error, msgspec.MsgspecError, InvalidArgument, RecursionError) as error:
        return (f"state: what was recorded cannot be read: {error}",)
    again = {arm: percent_text(weight) for arm, weight in step.weights.items()} if isinstance(step, NewWeights) else {}
    pairs: dict[str, tuple[object, object]] = {
        "weights": (recorded.weights, again),
        "rewards": (recorded.rewards, held.record.evidence.rewards),
        "revision": (recorded.revision, held.record.revision),
        "bandit": (recorded.bandit, held.record.id),
        "reason": (reason, shortened(step.reason)),
    }
    return tuple(f"{name}: {was} is recorded, it is {now}" for name, (was, now) in pairs.items() if was != now)
