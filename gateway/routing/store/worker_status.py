"""The status of a worker: which revision it follows, what it has not applied and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import msgspec

from gateway.errors import InvalidArgument

ERROR_LIMIT = 256
MODELS_TOLD = 100  # a worker that starts with thousands of routes does not list them all each time


class FeedState(Enum):
    STARTING = "STARTING"  # nothing known yet
    LIVE = "LIVE"  # follows the store
    STALE = "STALE"  # the store is away: the last known rules serve
    AHEAD = "AHEAD"  # the store lost what this worker has: the local rules serve until an operator heals it
    DRAINING = "DRAINING"  # leaving


@dataclass(frozen=True, slots=True)
class Unapplied:
    """The revisions of one model that were seen and are not in force, and why, if that is known."""

    revisions: tuple[int, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker's acknowledgement.

    `head` is the newest revision that it has seen, `revision` the newest such that it and every older one is in force.
    `unapplied` is what is not, by model: a route whose versions are still loading, or that could not be taken. Where
    these are too many to be told, those up to `untold` are left out. `error` is what is wrong beyond single routes.
    """

    id: str
    state: str
    epoch: str = ""
    head: int = 0
    revision: int = 0
    untold: int = 0
    unapplied: Mapping[str, Unapplied] = field(default_factory=dict)
    digest: str = ""
    error: str = ""
    pid: int = 0
    boot: str = ""
    host: str = ""
    seen_ms_ago: int = 0

    def applied(self, revision: int, epoch: str) -> bool:
        """True if this revision of that store is in force, or a newer one of the same model is."""
        seen = self.epoch == epoch and self.head >= revision
        if not seen or self.revision < revision <= self.untold:
            return False
        return not any(revision in route.revisions for route in self.unapplied.values())

    def refusal_of(self, revision: int, epoch: str) -> str:
        """Returns why the revision cannot come into force as things are; "" if it may."""
        if self.epoch == epoch:
            for route in self.unapplied.values():
                if revision in route.revisions:
                    return route.error
        return ""

    def error_of(self, revision: int, epoch: str) -> str:
        """Returns why the revision is not in force yet, as far as the worker knows."""
        following = self.state == FeedState.LIVE.value
        return self.refusal_of(revision, epoch) or ("" if following else f"{self.state}: {self.error}")

    def all_errors(self) -> str:
        """One line for people: everything that this worker complains about."""
        parts = [self.error] if self.error else []
        parts += [f"{model}: {route.error}" for model, route in self.unapplied.items() if route.error]
        return "; ".join(parts)

    def to_fields(self) -> dict[str, str]:
        newest_last = sorted(self.unapplied.items(), key=lambda item: item[1].revisions[-1])
        left_out, told = newest_last[:-MODELS_TOLD], newest_last[-MODELS_TOLD:]
        unapplied = {model: [list(route.revisions), route.error[:ERROR_LIMIT]] for model, route in told}
        return {
            "id": self.id,
            "state": self.state,
            "epoch": self.epoch,
            "head": str(self.head),
            "revision": str(self.revision),
            "untold": str(left_out[-1][1].revisions[-1] if left_out else 0),
            "unapplied": msgspec.json.encode(unapplied).decode(),
            "digest": self.digest,
            "error": self.error[:ERROR_LIMIT],
            "pid": str(self.pid),
            "boot": self.boot,
            "host": self.host,
        }

    def seen(self, ms_ago: int) -> "WorkerStatus":
        return replace(self, seen_ms_ago=ms_ago)


def parse_status(fields: Sequence[bytes]) -> WorkerStatus:
    """The status that a hash or an acknowledgement holds.

    Raises: InvalidArgument for anything else.
    """
    try:
        texts = [text.decode() for text in fields]
        values = dict(zip(texts[::2], texts[1::2], strict=True))
        told = msgspec.json.decode(values["unapplied"], type=dict[str, tuple[tuple[int, ...], str]])
        unapplied = {model: Unapplied(revisions, error) for model, (revisions, error) in told.items()}
        return WorkerStatus(
            id=values["id"],
            state=values["state"],
            epoch=values["epoch"],
            head=int(values["head"]),
            revision=int(values["revision"]),
            untold=int(values["untold"]),
            unapplied=unapplied,
            digest=values["digest"],
            error=values["error"],
            pid=int(values["pid"]),
            boot=values["boot"],
            host=values["host"],
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidArgument(f"not a worker's acknowledgement ({type(error).__name__})") from error
