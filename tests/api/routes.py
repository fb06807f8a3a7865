"""Route documents of the model `affine` for the tests of the control service."""

from collections.abc import Mapping

from gateway.routing.document.document import RouteDocument, parse

ARMS = {"stable": {"version": "1"}, "canary": {"version": "2"}}
STEPS = [{"weight": "1%"}, {"weight": "5%"}, {"weight": "25%"}]


def route(arms: Mapping[str, object], strategy: Mapping[str, object], **spec: object) -> RouteDocument:
    """A document of `affine` with this much of a spec."""
    return parse(
        {
            "apiVersion": "gateway/v1",
            "kind": "Route",
            "metadata": {"model": "affine"},
            "spec": {"arms": arms, "strategy": strategy, **spec},
        }
    )


def ab(a: float = 50, b: float = 50, **spec: object) -> RouteDocument:
    arms = {"a": {"version": "1"}, "b": {"version": "2"}}
    return route(arms, {"ab": {"control": "a", "weights": {"a": f"{a}%", "b": f"{b}%"}}}, **spec)


def canary(**fields: object) -> RouteDocument:
    return route(ARMS, {"canary": {"steps": STEPS, **fields}})


def blue_green(active: str = "blue", preview: str = "green") -> RouteDocument:
    arms = {"blue": {"version": "1"}, "green": {"version": "2"}, "red": {"version": "3"}}
    return route(arms, {"blueGreen": {"active": active} | ({"preview": preview} if preview else {})})


def pinned(arm: str = "stable", **spec: object) -> RouteDocument:
    return route(ARMS, {"pinned": {"arm": arm}}, **spec)
