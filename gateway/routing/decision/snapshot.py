"""The compiled routing of one moment: immutable, replaced as a whole by one assignment."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType

from gateway.routing.decision.compiled import CompiledRoute, compile_route
from gateway.routing.decision.decision import Decision
from gateway.routing.decision.route import Route, propose

__all__ = ["EMPTY", "CompiledRoute", "Route", "Snapshot", "compile_route", "propose"]

_WRAP = 1 << 256


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every model's active route at one revision of one store (`epoch` is that store's identity).

    Order: a request that has read a snapshot decides by it alone, whatever is assigned meanwhile.
    """

    epoch: str
    revision: int
    routes: Mapping[str, CompiledRoute] = field(default_factory=dict)
    unrouted: Decision = field(init=False, repr=False, compare=False)  # for a model without a route and without a pin
    _sum: int = field(default=-1, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.routes, MappingProxyType):
            object.__setattr__(self, "routes", MappingProxyType(dict(self.routes)))
        object.__setattr__(self, "unrouted", Decision("", "", self.revision, "DEFAULT"))
        if self._sum < 0:
            object.__setattr__(self, "_sum", sum(map(_mark, self.routes.values())) % _WRAP)

    @classmethod
    def of(cls, epoch: str, revision: int, routes: Iterable[Route]) -> "Snapshot":
        """The snapshot with these routes, compiled."""
        return cls(epoch, revision, {route.model: compile_route(route) for route in routes})

    @property
    def digest(self) -> str:
        """Equal where all routes are equal, in hexadecimal; their order does not matter.

        It is the sum, modulo 2^256, of the SHA-256 of each model's name and route digest, so that a change costs one
        addition and one subtraction however many routes there are. It detects accidents, not forgers.
        """
        return f"{self._sum:064x}"

    def with_route(self, route: Route | CompiledRoute) -> "Snapshot":
        """The snapshot with this route in the place of its model's; the revision never goes back."""
        compiled = route if isinstance(route, CompiledRoute) else compile_route(route)
        model, revision = compiled.route.model, compiled.route.revision
        old = self.routes.get(model)
        total = self._sum + _mark(compiled) - (_mark(old) if old is not None else 0)
        routes = MappingProxyType({**self.routes, model: compiled})
        return Snapshot(self.epoch, max(self.revision, revision), routes, total % _WRAP)

    def without_route(self, model: str, revision: int) -> "Snapshot":
        """The snapshot in which the model's newest ready version answers; the revision never goes back."""
        routes = dict(self.routes)
        old = routes.pop(model, None)
        total = self._sum - (_mark(old) if old is not None else 0)
        return Snapshot(self.epoch, max(self.revision, revision), MappingProxyType(routes), total % _WRAP)

    def at(self, epoch: str, revision: int) -> "Snapshot":
        """The same routes as another moment of a store."""
        return Snapshot(epoch, revision, self.routes, self._sum)


def _mark(compiled: CompiledRoute) -> int:
    return int.from_bytes(sha256(f"{compiled.route.model}\0{compiled.digest}".encode()).digest(), "big")


EMPTY = Snapshot("", 0)
