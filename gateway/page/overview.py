"""The read model: what `gateway status -o json` prints and the operators' page shows (pure).

It has two halves: the rules, which any worker knows from the store, and what this host does now, which its control
process knows. A half that could not be had is None: nothing known is never all well.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from gateway.page.host_view import HostView
from gateway.page.route_words import in_force_text
from gateway.page.traffic import ArmTraffic
from gateway.pb import control_pb2 as pb

BUCKETS = 1_000_000


class ArmView(msgspec.Struct, frozen=True):
    """An arm of a route. Units: `share` and `live_share` in percent; None: not drawn by share, or no requests.

    `version` is that of the document. `traffic` is None where the arm's was not seen lately. `copies` says what
    became of those that it ran as a mirror since the host's start, `mirror` is of the pairs of them that the log has.
    """

    arm: str
    version: str
    share: float | None
    live_share: float | None
    traffic: ArmTraffic | None
    breaker: str
    mirror: Mapping[str, Any] | None
    copies: Mapping[str, Any] | None = None


class RouteView(msgspec.Struct, frozen=True):
    """A route in force. `also` are the rules, mirrors, holdouts and chains that decide besides the shares.

    `document` is the one that was applied; the rest is what its rollout has made of it.
    """

    model: str
    strategy: str
    revision: int
    committed_at: str
    shares: Mapping[str, float]
    also: tuple[str, ...]
    arms: tuple[ArmView, ...]
    document: Mapping[str, Any]


class Overview(msgspec.Struct, frozen=True):
    """What is in force, and what happens. `stale`: the store is away, so the rules are those that workers serve by.

    `routes`, `rollouts` and `workers` are of all hosts; `models` and `host` of the one that answers. `unknown` has the
    parts that could not be had, with the reason: they are empty, and that says nothing.
    """

    epoch: str
    revision: int
    stale: bool
    routes: tuple[RouteView, ...]
    rollouts: tuple[Mapping[str, Any], ...]
    workers: tuple[Mapping[str, Any], ...]
    models: tuple[Mapping[str, Any], ...]
    history: tuple[Mapping[str, Any], ...]
    host: HostView | None
    unknown: Mapping[str, str]


def overview_of(
    listed: pb.ListRoutesResponse,
    rollouts: Sequence[Mapping[str, Any]],
    workers: Sequence[Mapping[str, Any]],
    models: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    host: HostView | None,
    *,
    unknown: Mapping[str, str],
    also: Callable[[str], Iterable[str]],
    moment: Callable[[int], str],
) -> Overview:
    """Returns the read model. `also` says in words what else a document decides, `moment` writes a time.

    Order: routes by model, arms as the document has them.
    """
    return Overview(
        listed.epoch,
        listed.revision,
        listed.stale,
        tuple(
            _route(route, host, tuple(also(in_force_text(route))), moment(route.committed_at_us))
            for route in sorted(listed.routes, key=lambda route: route.model)
        ),
        tuple(rollouts),
        tuple(workers),
        tuple(models),
        tuple(history),
        host,
        unknown,
    )


def unanswered(host: HostView | None, reason: str) -> Overview:
    """Returns what is known while no worker answers: the host, where it may be told, and nothing of the rules."""
    parts = ("ListRoutes", "ListRollouts", "Workers", "Models", "Audit", *(() if host is not None else ("host",)))
    return Overview("", 0, False, (), (), (), (), (), host, dict.fromkeys(parts, reason))


def visible(host: HostView | None, may_read: Callable[[str], bool], *, everything: bool) -> HostView | None:
    """Returns what a caller may see of a host: its models; processes, log and events only who may read everything."""
    if host is None or everything:
        return host
    own = {
        name: tuple(one for one in getattr(host, name) if may_read(str(_model_of(one))))
        for name in ("traffic", "breakers", "drift", "mirrors", "copies", "performance", "quarantine")
    }
    return msgspec.structs.replace(host, processes=(), log={}, events=(), troubles=(), **own)


def _model_of(one: Any) -> object:
    return one.get("model") if isinstance(one, Mapping) else one.model


def _route(route: pb.Route, host: HostView | None, also: tuple[str, ...], committed_at: str) -> RouteView:
    document = msgspec.json.decode(route.document_json)
    spec = msgspec.json.decode(in_force_text(route))["spec"]
    sizes: dict[str, int] = {}
    for part in route.table:
        sizes[part.arm] = sizes.get(part.arm, 0) + part.end - part.start
    shares = {arm: size / (BUCKETS / 100) for arm, size in sizes.items()}
    traffic = [one for one in host.traffic if one.model == route.model] if host is not None else []
    total = sum(one.requests for one in traffic)
    arms = [
        _arm(route.model, name, str(arm.get("version", "")), shares.get(name), traffic, total, host)
        for name, arm in spec["arms"].items()
    ]
    named = {arm.arm for arm in arms}
    # Arms that the route gives by itself (a holdout), and those of requests that asked for a version.
    arms += [
        _arm(route.model, one.arm, one.version, shares.get(one.arm), traffic, total, host)
        for one in traffic
        if one.arm not in named
    ]
    strategy = str(next(iter(spec["strategy"])))
    return RouteView(route.model, strategy, route.revision, committed_at, shares, also, tuple(arms), document)


def _arm(
    model: str,
    arm: str,
    version: str,
    share: float | None,
    traffic: Sequence[ArmTraffic],
    total: float,
    host: HostView | None,
) -> ArmView:
    own = next((one for one in traffic if one.arm == arm and version in ("", one.version)), None)
    breakers = host.breakers if host is not None else ()
    mirrors = host.mirrors if host is not None else ()
    copies = host.copies if host is not None else ()
    return ArmView(
        arm,
        version or (own.version if own is not None else ""),
        share,
        100 * own.requests / total if own is not None and total > 0 else None,
        own,
        next((str(one["state"]) for one in breakers if (one["model"], one["arm"]) == (model, arm)), ""),
        next((one for one in mirrors if (one["model"], one["arm"]) == (model, arm)), None),
        next((one for one in copies if (one["model"], one["arm"]) == (model, arm)), None),
    )
