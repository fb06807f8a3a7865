"""Relative verbs: rollback, flip and promote go one step from what is active, so two at once would go two.

Whoever gives such a verb means the revision that they saw. If a newer change did just what is asked for, it is the
answer: the step was taken already. Any other newer change is one that they must see first.
"""

from dataclasses import dataclass

from gateway.routing.store.change import ChangeEntry

# Nobody reads a change, decides and answers it with the same verb faster than that.
REACTION_MS = 5_000


@dataclass(frozen=True, slots=True)
class DoneAlready:
    """The change of somebody else that did what was asked for, and how long ago."""

    entry: ChangeEntry
    ms_ago: int


def unseen(newest: ChangeEntry, left: int | None, *, age_ms: int, given_ms_ago: int, same: bool) -> bool:
    """Returns whether the caller of a relative verb cannot have meant the revision that `newest` made.

    `left` is the revision that the caller names, None if none; `same` tells whether `newest` did what is asked for.
    """
    if left is not None:
        return left != (newest.revision if newest.route_text else 0)
    return age_ms < given_ms_ago or (same and age_ms < given_ms_ago + REACTION_MS)
