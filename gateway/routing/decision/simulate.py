"""The outcome of real keys under a draft: decided by the active route and by the draft's; rules and pins aside."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gateway.errors import FailedPrecondition
from gateway.routing.decision.compiled import salt_of
from gateway.routing.decision.flow import BucketArms, Flow, moved, named, reversioned
from gateway.routing.decision.snapshot import Route, propose
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.key import bucket_of, seed_of


@dataclass(frozen=True, slots=True)
class Simulation:
    """Keys by the arm that answers them now and the one that would. `left_out` could not be told."""

    base_revision: int
    flows: tuple[Flow, ...]
    left_out: int = 0

    @property
    def counted(self) -> int:
        return sum(flow.size for flow in self.flows)

    @property
    def moved(self) -> int:
        return moved(self.flows)

    @property
    def other_version(self) -> int:
        return reversioned(self.flows)


def simulate_keys(active: Route | None, draft: RouteDocument, keys: Iterable[str], *, newest: str = "") -> Simulation:
    """The keys, each put into its bucket under either document's salt; `newest` answers where there is no route."""
    old_seed = seed_of(salt_of(active.document)) if active is not None else 0
    new_seed = seed_of(salt_of(draft))
    return _simulate(active, draft, ((bucket_of(key, old_seed), bucket_of(key, new_seed)) for key in keys), newest)


def simulate_buckets(
    active: Route | None, draft: RouteDocument, buckets: Iterable[int], left_out: int, *, newest: str = ""
) -> Simulation:
    """The buckets of logged requests that were made under the active route's salt and key sources.

    Raises: FailedPrecondition where the draft has other ones: its buckets cannot be told from those of the log.
    """
    if active is not None and hashing(active.document) != hashing(draft):
        raise FailedPrecondition(
            f"model {draft.model!r}: the draft has another salt or other key sources than revision {active.revision}, "
            "so logged buckets say nothing about it; simulate with keys"
        )
    simulation = _simulate(active, draft, ((bucket, bucket) for bucket in buckets), newest)
    return replace(simulation, left_out=left_out)


def hashing(document: RouteDocument) -> tuple[object, ...]:
    """Returns what decides which bucket a request falls into: equal where the same request has the same bucket."""
    return salt_of(document), document.key.sources if document.key is not None else ()


def _simulate(active: Route | None, draft: RouteDocument, pairs: Iterable[tuple[int, int]], newest: str) -> Simulation:
    route = propose(draft, active)
    old, new = BucketArms(active), BucketArms(route)
    sizes: dict[tuple[str, str], int] = {}
    for before, after in pairs:
        arms = (old.arm_of(before), new.arm_of(after))
        sizes[arms] = sizes.get(arms, 0) + 1
    return Simulation(active.revision if active is not None else 0, named(active, route, sizes, newest))
