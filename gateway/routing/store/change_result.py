"""The outcome of a change of a route."""

from dataclasses import dataclass, field

from gateway.routing.decision.flow import Flow, moved
from gateway.routing.decision.snapshot import Route
from gateway.routing.store.change import Replicas
from gateway.routing.store.relative import DoneAlready
from gateway.routing.store.store_reply import Applied


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """Holds what a change came to.

    `applied` is empty if it was not waited for, `applied_us` 0. `unchanged`: the document was active already and
    nothing was committed; `already` says by whom, where a relative verb lost against its like. `flows` tells who moves,
    unless the change is repeated or unchanged; `cautions` what of the document is seldom meant.
    """

    model: str
    revision: int
    previous_revision: int
    epoch: str
    commit_us: int = 0
    applied_us: int = 0
    applied: Applied = field(default_factory=Applied)
    unchanged: bool = False
    restored_revision: int = 0
    replicas: Replicas = field(default_factory=Replicas)
    flows: tuple[Flow, ...] = ()
    already: DoneAlready | None = None
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """A change with the route that it made."""

    change: ChangeResult
    route: Route

    @property
    def moved_buckets(self) -> int:
        """Returns how many of 1 000 000 buckets get another arm; without a route before, another version."""
        return moved(self.change.flows)
