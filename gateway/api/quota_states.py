"""The quotas of this host and what is in use of them, as operators see them."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.errors import FailedPrecondition
from gateway.pb import control_pb2 as pb

Answer = Mapping[str, object]


class HostQuotas(Protocol):
    """Asks the workers of this host."""

    async def present(self) -> Sequence[Answer]:
        """Returns what each worker that answers says of its quotas; nothing where there are none."""


class QuotaStates:
    """Serves Quotas."""

    def __init__(self, host: HostQuotas) -> None:
        self._host = host

    async def quotas(self, request: pb.QuotasRequest, context: object) -> pb.QuotasResponse:
        answers = await self._host.present()
        if not answers:
            raise FailedPrecondition("there are no quotas: the gateway was started without --quotas")
        return summed(answers)


def summed(answers: Sequence[Answer]) -> pb.QuotasResponse:
    """Returns the workers' answers as one: what is in use adds up, what is left of a bucket is the mean.

    A quota or user that one worker does not know yet, or any more, is shown as the others have it.
    """
    response = pb.QuotasResponse(workers=len(answers))
    states: dict[str, pb.QuotaState] = {}
    users: dict[tuple[str, str], pb.QuotaUser] = {}
    left: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for answer in answers:
        response.trouble = response.trouble or str(answer["trouble"])
        for quota in _items(answer, "quotas"):
            name = str(quota["name"])
            fields = {key: value for key, value in quota.items() if key not in ("users", "refused")}
            state = states.get(name)
            if state is None:
                state = states[name] = response.quotas.add(**fields)
            state.refused += int(str(quota["refused"]))
            for use in _items(quota, "users"):
                key = (name, str(use["who"]))
                user = users.get(key)
                if user is None:
                    user = users[key] = state.users.add(who=key[1])
                user.in_flight += int(str(use["in_flight"]))
                user.requests_per_second += int(str(use["rate"]))
                left.setdefault(key, []).append((float(str(use["requests_left"])), float(str(use["bytes_left"]))))
    for key, user in users.items():
        # A worker that has not seen the user has a full bucket.
        shares = [*left[key], *[(1.0, 1.0)] * (len(answers) - len(left[key]))]
        user.requests_left = sum(share for share, _ in shares) / len(shares)
        user.bytes_left = sum(share for _, share in shares) / len(shares)
    return response


def _items(answer: Answer, key: str) -> list[Answer]:
    items = answer.get(key)
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []
