"""What a worker says of itself: which revision it follows, what it has not applied and why."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from gateway.errors import InvalidArgument

ERROR_LIMIT = 512


class FeedState(Enum):
    STARTING = "STARTING"  # nothing known yet
    LIVE = "LIVE"  # follows the store
    STALE = "STALE"  # the store is away: the last known rules serve
    AHEAD = "AHEAD"  # the store lost what this worker has: the local rules serve until an operator settles it
    DRAINING = "DRAINING"  # leaving


@dataclass(frozen=True, slots=True)
class Unapplied:
    """The revisions of one model that were seen and are not in force, and why, if that is known."""

    revisions: tuple[int, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker's acknowledgement.

    `head` is the newest revision that it has seen, `unapplied` what of it is not in force, by model: a route whose
    versions are still loading, or that could not be taken. `error` is what is wrong beyond single routes.
    """

    id: str
    state: str
    epoch: str = ""
    head: int = 0
    unapplied: Mapping[str, Unapplied] = field(default_factory=dict)
    digest: str = ""
    error: str = ""
    pid: int = 0
    boot: str = ""
    host: str = ""
    seen_ms_ago: int = 0

    @property
    def revision(self) -> int:
        """The newest revision such that it and every older one is in force."""
        return dense(self.head, self.unapplied)

    def applied(self, revision: int, epoch: str) -> bool:
        """True if this revision of that store is in force, or a newer one of the same model is."""
        seen = self.epoch == epoch and self.head >= revision
        return seen and not any(revision in route.revisions for route in self.unapplied.values())

    def refusal_of(self, revision: int, epoch: str) -> str:
        """Why the revision cannot come into force as things are; "" if it may."""
        if self.epoch == epoch:
            for route in self.unapplied.values():
                if revision in route.revisions:
                    return route.error
        return ""

    def error_of(self, revision: int, epoch: str) -> str:
        """Why the revision is not in force yet, as far as the worker knows."""
        following = self.state == FeedState.LIVE.value
        return self.refusal_of(revision, epoch) or ("" if following else f"{self.state}: {self.error}")

    def all_errors(self) -> str:
        """One line for people: everything that this worker complains about."""
        parts = [self.error] if self.error else []
        parts += [f"{model}: {route.error}" for model, route in self.unapplied.items() if route.error]
        return "; ".join(parts)

    def to_fields(self) -> dict[str, str]:
        unapplied = {
            model: [list(route.revisions), route.error[:ERROR_LIMIT]] for model, route in self.unapplied.items()
        }
        return {
            "id": self.id,
            "state": self.state,
            "epoch": self.epoch,
            "head": str(self.head),
            "revision": str(self.revision),
            "unapplied": json.dumps(unapplied, separators=(",", ":")),
            "digest": self.digest,
            "error": self.error[:ERROR_LIMIT],
            "pid": str(self.pid),
            "boot": self.boot,
            "host": self.host,
        }

    def seen(self, ms_ago: int) -> "WorkerStatus":
        return replace(self, seen_ms_ago=ms_ago)


def dense(head: int, unapplied: Mapping[str, Unapplied]) -> int:
    """The newest revision such that it and every older one is in force."""
    waiting = [revision for route in unapplied.values() for revision in route.revisions]
    return min(head, min(waiting) - 1) if waiting else head


def parse_status(fields: Sequence[bytes]) -> WorkerStatus:
    """The status that a hash or an acknowledgement holds.

    Raises: InvalidArgument for anything else.
    """
    try:
        texts = [text.decode() for text in fields]
        values = dict(zip(texts[::2], texts[1::2], strict=True))
        unapplied = {
            str(model): Unapplied(tuple(int(revision) for revision in revisions), str(error))
            for model, (revisions, error) in json.loads(values["unapplied"]).items()
        }
        return WorkerStatus(
            id=values["id"],
            state=values["state"],
            epoch=values["epoch"],
            head=int(values["head"]),
            unapplied=unapplied,
            digest=values["digest"],
            error=values["error"],
            pid=int(values["pid"]),
            boot=values["boot"],
            host=values["host"],
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidArgument(f"not a worker's acknowledgement ({type(error).__name__})") from error
