"""Which revisions of a route are one experiment, and their phases: spans in which the split is the same. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.errors import FailedPrecondition
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.experiment_plan import NO_PLAN, ExperimentPlan
from gateway.routing.document.quantity import percent_text
from gateway.routing.document.strategy import HOLDOUT, Ab, Canary

PHASE_LIMIT: Final = 64


@dataclass(frozen=True, slots=True)
class RevisionSplit:
    """A revision of a route with its table, and the document that was in force.

    Shapes: bucket b is of `arms[i]` where i is the last with `starts[i]` <= b.

    Units: `since_us` since the epoch, by the store's clock. Of a deletion, `document` is None.
    """

    revision: int
    since_us: int
    document: RouteDocument | None
    starts: tuple[int, ...] = ()
    arms: tuple[str, ...] = ()

    @property
    def draws(self) -> bool:
        """Returns whether the revision asks a table for the arm of a key."""
        document = self.document
        return document is not None and document.strategy.splits and document.kill_switch is None

    @property
    def splits(self) -> bool:
        """Returns whether keys are drawn for several arms at this revision."""
        return self.draws and len(set(self.arms)) > 1

    def is_of(self, other: "RevisionSplit") -> bool:
        """Returns whether both are of one experiment: no arm has two versions, and a key has the same bucket."""
        mine, others = self.document, other.document
        if mine is None or others is None:
            return False
        versions, known = _versions(mine), _versions(others)
        same = all(known.get(arm, version) == version for arm, version in versions.items())
        alike = _hashing(mine) == _hashing(others) and mine.strategy.control_arm == others.strategy.control_arm
        return same and alike


@dataclass(frozen=True, slots=True)
class ExperimentPhase:
    """Revisions that follow each other with the same split. `until_us` is 0 while it goes on."""

    revisions: tuple[int, ...]
    since_us: int
    until_us: int
    starts: tuple[int, ...]
    arms: tuple[str, ...]

    @property
    def shares(self) -> dict[str, float]:
        """Returns the share of keys that each arm has; arms without one are left out."""
        ends = (*self.starts[1:], BUCKETS)
        sizes: dict[str, int] = {}
        for start, end, arm in zip(self.starts, ends, self.arms, strict=True):
            sizes[arm] = sizes.get(arm, 0) + end - start
        return {arm: size / BUCKETS for arm, size in sorted(sizes.items())}

    @property
    def told(self) -> str:
        """Returns the split in words."""
        return ", ".join(f"{arm} {percent_text(round(share * BUCKETS))}" for arm, share in self.shares.items())


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is compared with what, and since when. `others` are the arms that are held against `control`."""

    model: str
    control: str
    others: tuple[str, ...]
    versions: Mapping[str, str]
    phases: tuple[ExperimentPhase, ...]
    documents: tuple[RouteDocument, ...]  # of its revisions, the newest last
    left_out: int = 0  # phases that are too old to be among the newest `PHASE_LIMIT`
    ended_by: int = 0  # the revision since which nothing is split any more; 0: it goes on

    @property
    def plan(self) -> ExperimentPlan:
        """Returns what the document says that it is judged by."""
        strategy = self.documents[-1].strategy
        return strategy.plan if isinstance(strategy, Ab) else NO_PLAN

    @property
    def arms(self) -> tuple[str, ...]:
        """Returns the control arm and then the others."""
        return (self.control, *self.others)

    @property
    def is_keyed(self) -> bool:
        """Returns whether a caller keeps its arm; else every request is drawn for itself."""
        return self.documents[-1].key is not None


def experiment_of(model: str, history: Sequence[RevisionSplit], *, since: int = 0) -> Experiment:
    """Returns the newest experiment of the route, its revisions before `since` left out.

    Order: the history is newest first, without gaps.
    Raises: FailedPrecondition (at no revision that is kept, or from `since` on, several arms had keys).
    """
    newest = next((one for one in history if one.splits), None)
    if newest is None or newest.document is None:
        raise FailedPrecondition(
            f"model {model!r}: no revision of its route that is kept splits keys between arms, so there is nothing to "
            "compare; an A/B test is `strategy: {ab: ...}` (docs/experiments.md)"
        )
    kept: list[tuple[RevisionSplit, int]] = []  # with the end of each; newest first
    until_us = 0
    for one in history:
        if one.revision < since or (one.splits and not one.is_of(newest)):
            break
        if one.splits:
            kept.append((one, until_us))
        until_us = one.since_us
    if not kept:
        raise FailedPrecondition(
            f"model {model!r}: no revision from {since} on splits keys between arms; the newest that does is "
            f"{newest.revision}"
        )
    phases = _phases(list(reversed(kept)))
    control = newest.document.strategy.control_arm
    others = tuple(sorted({arm for phase in phases for arm in phase.arms} - {control}))
    documents = tuple(one.document for one, _ in reversed(kept) if one.document is not None)
    versions: dict[str, str] = {}
    for document in documents:
        versions |= _versions(document)
    versions[HOLDOUT] = versions[control]
    ended_by = 0 if history[0].splits else history[history.index(newest) - 1].revision
    versions = {arm: versions[arm] for arm in (control, *others)}
    left_out = max(0, len(phases) - PHASE_LIMIT)
    return Experiment(model, control, others, versions, phases[-PHASE_LIMIT:], documents, left_out, ended_by)


def _phases(kept: Sequence[tuple[RevisionSplit, int]]) -> tuple[ExperimentPhase, ...]:
    phases: list[ExperimentPhase] = []
    for one, until_us in kept:
        last = phases[-1] if phases else None
        if last is not None and (last.starts, last.arms) == (one.starts, one.arms):
            revisions = (*last.revisions, one.revision)
            phases[-1] = ExperimentPhase(revisions, last.since_us, until_us, one.starts, one.arms)
        else:
            phases.append(ExperimentPhase((one.revision,), one.since_us, until_us, one.starts, one.arms))
    return tuple(phases)


def _hashing(document: RouteDocument) -> tuple[object, ...]:
    """Returns what decides which bucket a request falls into."""
    key = document.key
    return (key.sources, key.salt) if key is not None else ()


def _versions(document: RouteDocument) -> dict[str, str]:
    """Returns the version of each arm that has a share, or may get one in a canary."""
    strategy = document.strategy
    names = set(document.weights())
    if isinstance(strategy, Canary):
        names |= {strategy.stable, strategy.canary}
    return {arm: document.version_of(arm) for arm in sorted(names - {HOLDOUT})}
