"""What follows when an alias of a model's source names another version: pure, from what is known to what is to be done.

A move of the alias is made a change of the route once. Whoever changes the label after that, by hand or by a rollback,
is right until the alias moves again: so what counts is not where the label is, but what was made of the alias last.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

import msgspec

from gateway.errors import InvalidArgument
from gateway.routing.decision.route import Route
from gateway.routing.document.route_status import led_status
from gateway.routing.document.version_label import Following


@dataclass(frozen=True, slots=True)
class SourceLook:
    """Holds the versions that a model's aliases named when a worker looked, by the store's clock."""

    versions: Mapping[str, str]
    at_us: int


class SeenAlias(msgspec.Struct, frozen=True):
    """What was made of an alias: `version` is the one that it named, as of a look at `at_us`.

    `alias` and `begins` are those of the label's entry, which is another one where they differ. `mark` is random: no
    other move has it. `draft` is the one that was written for the version, "" if none was.
    """

    alias: str
    begins: str
    version: str
    at_us: int
    mark: str
    draft: str = ""

    def once(self, version: str) -> str:
        """Returns the name of the move from here to that version: one commit has it, however many try."""
        return sha256(f"alias {self.mark} {version}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Lead:
    """The label gets the version."""

    version: str


@dataclass(frozen=True, slots=True)
class Remember:
    """There is nothing to change: from now on a move is one from this version, as of `at_us`."""

    version: str
    at_us: int


@dataclass(frozen=True, slots=True)
class Held:
    """The label stays where it is, for now, because of `reason`."""

    reason: str


AliasStep: TypeAlias = Lead | Remember | Held | None


def alias_step(route: Route, following: Following, look: SourceLook | None, seen: SeenAlias | None) -> AliasStep:
    """Returns what is to be done about a label that follows an alias; None for nothing.

    1. A label that is new, or follows another alias or from another version, is led to what the alias names.
    2. What an older look shows than the one by which something was made of the alias is no move.
    3. A move waits while the kill switch is on, or where the version is another arm's.
    4. What was promoted from the alias is not replaced without a rollout: that needs another document.
    """
    if look is None or following.alias not in look.versions:
        whose = "no worker has the model in its repository" if look is None else "the model's source has no such alias"
        return Held(f"alias {following.alias!r}: {whose}")
    version, own = look.versions[following.alias], dict(route.document.labels)[following.label]
    if seen is None or (seen.alias, seen.begins) != (following.alias, dict(route.spec.labels)[following.label]):
        return Remember(own, look.at_us - 1)
    if look.at_us <= seen.at_us or version == seen.version:
        return None
    if version == own:
        return Remember(version, look.at_us)
    moved = f"alias {following.alias!r} has moved to version {version!r}"
    if (kill := route.document.kill_switch) is not None:
        return Held(f"{moved}, and the kill switch is on ({kill.reason})")
    try:
        status = led_status(route.spec, route.status, following.label, version)
    except InvalidArgument as error:
        return Held(f"{moved}: {error}")
    if route.status.promoted and not status.promoted:
        return Held(
            f"{moved}, and the version that it named before was promoted: apply a document that says which version is "
            "the stable one, and what the next one begins with"
        )
    return Lead(version)
