"""A change of a route: who asks for it and why, what was committed, and how the log and the history hold it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, cast, get_args

from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.routing.decision.snapshot import Route

Operation = Literal[
    "apply",
    "rollback",
    "delete",
    "flip",
    "weights",
    "pin",
    "kill",
    "unkill",
    "promote",
    "label",
    "approve",
    "abort",
    "resume",
    "retry",
]
# What heals a store after it lost writes; such an entry names no model and makes every worker read all routes again.
HealingOperation = Literal["restore", "accept"]

JUDGE = "judge"  # the actor of those changes, and what it records
JUDGE_SOURCE = "rollout"  # of the changes that the judge of rollouts makes
FOLLOWER = "aliases"  # the actor of changes by which labels follow aliases
FOLLOWER_SOURCE = "alias"
# What is said of changes from outside is told apart from these: a rollback and the judge go by them.
OWN_SOURCES = frozenset({JUDGE_SOURCE, FOLLOWER_SOURCE})
TEXT_LIMIT = 1024
KEY_LIMIT = 128
SOURCE_LIMIT = 64
DETAIL_LIMIT = 256 << 10


class StoreReplaced(FailedPrecondition):
    """The store is not the one that was read: it was emptied, replaced or restored meanwhile."""

    def __init__(self, epoch: str) -> None:
        super().__init__(f"the routing store was replaced: its epoch is now {epoch or 'none'!r}")
        self.epoch = epoch


@dataclass(frozen=True, slots=True)
class Change:
    """Holds who changes what and why; every commit carries one into the history. `detail` is for the audit trail alone:
    by what the judge of rollouts has decided. `keyed_by` is the caller whose idempotency key that is, None for one of
    the gateway's own.

    Raises: InvalidArgument for a text that is too long.
    """

    actor: str = ""
    reason: str = ""
    source: str = ""
    idempotency_key: str = ""
    given_ms_ago: int = 0  # when it was asked for: what was committed since, its author cannot have seen
    detail: str = ""
    keyed_by: str | None = None

    @property
    def remembered_as(self) -> str:
        """The idempotency key as the store knows it: of two callers none learns, takes or blocks what another did."""
        if not self.idempotency_key or self.keyed_by is None:
            return self.idempotency_key
        caller = sha256(self.keyed_by.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return f"by:{caller}:{self.idempotency_key}"

    def __post_init__(self) -> None:
        limits = {"actor": 256, "reason": TEXT_LIMIT, "source": SOURCE_LIMIT}
        limits |= {"idempotency_key": KEY_LIMIT, "detail": DETAIL_LIMIT}
        for field, limit in limits.items():
            size = len(getattr(self, field).encode("utf-8", "surrogatepass"))
            if size > limit:
                raise InvalidArgument(f"change.{field}: {size} bytes, at most {limit} are allowed")
        if not self.idempotency_key.isprintable():
            raise InvalidArgument("change.idempotency_key: only printable characters are allowed")


@dataclass(frozen=True, slots=True)
class Proposal:
    """Holds what a commit shall do if the store is still as the caller saw it.

    `route` is None for a deletion; its revision, previous revision and time are the store's to give.
    `expected_revision` is the model's active revision (0: it has none), or None to commit whatever it is.
    """

    model: str
    operation: Operation
    route: Route | None
    expected_revision: int | None
    epoch: str
    change: Change
    restored_revision: int = 0


@dataclass(frozen=True, slots=True)
class Healing:
    """Holds what the store shall be from now on, if it is still as it was seen, byte for byte.

    `routes` are written back; those that it holds beside them go, unless `keeps_others`. `findings` say
    what was wrong; `strangers` are models whose routes are none and which nobody serves by a route: they go aside.
    """

    operation: HealingOperation
    seen_epoch: bytes
    seen_revision: bytes
    epoch: str
    revision: int
    routes: tuple[Route, ...] = ()
    keeps_others: bool = False
    findings: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replicas:
    """Holds how many replicas the store's server had at a commit, and how many of them confirmed it within 100 ms.

    A commit that no replica has is lost if the server is lost now.
    """

    known: int = 0
    confirmed: int = 0


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit's outcome; `repeated` if the idempotency key had been used for it before.

    Units: `committed_at_us` since the Unix epoch, by the store's clock.
    """

    model: str
    operation: Operation
    revision: int
    previous_revision: int
    epoch: str
    committed_at_us: int
    restored_revision: int = 0
    repeated: bool = False
    replicas: Replicas = Replicas()


@dataclass(frozen=True, slots=True)
class ChangeEntry:
    """One change as the log and the history hold it. `route_text` is "" for a deletion."""

    revision: int
    model: str
    operation: Operation | HealingOperation
    route_text: str
    previous_revision: int
    digest: str
    actor: str
    reason: str
    source: str
    committed_at_us: int
    restored_revision: int

    @property
    def origin(self) -> int:
        """The revision whose document this one made active: its own, or the one that a rollback restored."""
        return self.restored_revision or self.revision


def shortened(words: str) -> str:
    """As much of a text as an entry may hold."""
    return words.encode("utf-8", "replace")[:TEXT_LIMIT].decode(errors="ignore")


def operation(word: str) -> Operation:
    """Raises: ValueError for a word that is no operation."""
    if word not in get_args(Operation):
        raise ValueError(f"operation {word!r}")
    return cast(Operation, word)


def parse_entry(entry_id: str, fields: Sequence[bytes]) -> ChangeEntry:
    """The entry that a stream holds under `entry_id`.

    Raises: InvalidArgument for whatever a commit would not have written.
    """
    try:
        texts = [field.decode() for field in fields]
        values: Mapping[str, str] = dict(zip(texts[::2], texts[1::2], strict=True))
        revision, sequence = entry_id.split("-")
        word = values["op"]
        if word not in (*get_args(Operation), *get_args(HealingOperation)) or sequence != "0":
            raise ValueError(f"operation {word!r}")
        return ChangeEntry(
            revision=int(revision),
            model=values["model"],
            operation=cast(Operation | HealingOperation, word),
            route_text=values["route"],
            previous_revision=int(values["prev"]),
            digest=values["digest"],
            actor=values["actor"],
            reason=values["reason"],
            source=values["source"],
            committed_at_us=int(values["at"]),
            restored_revision=int(values["restored"]),
        )
    except (ValueError, KeyError) as error:
        raise InvalidArgument(f"log entry {entry_id}: not a committed change ({error})") from error
