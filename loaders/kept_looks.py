"""What was seen in a directory, kept while nothing below it has moved.

To look at a model opens each directory from the one above it and judges each link. To see that all is as it was takes
a fifth of that, which counts where a thousand models are looked at every two seconds by every worker.

1. The state of a directory is the stamp (`tree.stamp_of`) of everything below it that a look can see, taken anew each
   time. It is compared with another state alone, never with a clock.
2. An answer is kept with the state from before it was given: what changed in between shows at the next look.
3. Where a link lies, or too much, there is no state, and nothing is kept: what a link leads to may change elsewhere.
"""

import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

from loaders.tree import stamp_of

T = TypeVar("T")
State = Mapping[str, tuple[int, ...]]

MOST_ENTRIES: Final = 1024


@dataclass(frozen=True, slots=True)
class _Kept:
    """A directory's state, and the answers about it by question."""

    state: State
    answers: dict[str, object] = field(default_factory=dict)


class KeptLooks:
    """Answers about directories. Within `one_look` the state of each is taken once."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._look = threading.local()  # the directories that this thread has looked at within `one_look`

    @contextmanager
    def one_look(self) -> Iterator[None]:
        """Keeps afterwards what was asked about until the end, and nothing else."""
        seen: dict[str, _Kept | None] = {}
        self._look.seen = seen
        try:
            yield
            self._kept = {path: kept for path, kept in seen.items() if kept is not None}
        finally:
            del self._look.seen

    def answer(self, path: str, question: str, look: Callable[[], T]) -> T:
        """Returns what `look` returns, or did when the directory was as it is now. Raises: as `look`.

        `question` names the answer among those about the directory. Outside of `one_look` nothing is kept.
        """
        seen: dict[str, _Kept | None] | None = getattr(self._look, "seen", None)
        if seen is None:
            return look()
        if path not in seen:
            seen[path] = self._as_it_is(path)
        kept = seen[path]
        if kept is None:
            return look()
        if question not in kept.answers:
            kept.answers[question] = look()
        return cast(T, kept.answers[question])

    def _as_it_is(self, path: str) -> _Kept | None:
        """Returns the answers that hold of the directory as it is now; None where nothing can be kept."""
        state, known = state_of(path), self._kept.get(path)
        if state is None:
            return None
        return known if known is not None and known.state == state else _Kept(state)


def state_of(path: str) -> State | None:
    """Returns the stamps of a directory and of everything below it; None where there is no telling.

    Names that begin with a dot are passed over, as every look does.
    """
    state: dict[str, tuple[int, ...]] = {}
    try:
        top = os.lstat(path)
        if not stat.S_ISDIR(top.st_mode):
            return None
        state[""] = stamp_of(top)
        pending = [path]
        while pending:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_symlink() or len(state) > MOST_ENTRIES:
                        return None
                    state[entry.path] = stamp_of(entry.stat(follow_symlinks=False))
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
    except OSError:
        return None
    return state
