"""What a message is before it is read, on a transport that does not show its beginning: like the caller's last one."""

from collections import OrderedDict
from typing import Final

_VALID_NS: Final = 1_000_000_000
_MOST: Final = 4096


class Precedent:
    """The last message that was read of one caller and method.

    `subject` is what its beginning says of who serves it. Units: `read_ns` is when it was read, `mixed_ns` when a
    message was read whose subject was not that of the one before, on the monotonic clock.
    """

    __slots__ = ("lead", "mixed_ns", "read_ns", "size_bytes", "subject")

    def __init__(self, subject: object, lead: bytes, size_bytes: int, read_ns: int, mixed_ns: int) -> None:
        self.subject = subject
        self.lead = lead
        self.size_bytes = size_bytes
        self.read_ns = read_ns
        self.mixed_ns = mixed_ns


class Precedents:
    """Remembers one message for each caller and method, of those that were heard last.

    A precedent holds for a second, and not within a second of messages that differ: then only the message itself tells.
    """

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str], Precedent] = OrderedDict()

    def note(self, caller: str, path: str, subject: object, lead: bytes, size_bytes: int, now_ns: int) -> None:
        """Remembers a message that was read."""
        key = caller, path
        before = self._last.pop(key, None)
        mixed_ns = now_ns - _VALID_NS
        if before is not None:
            mixed_ns = before.mixed_ns if before.subject == subject else now_ns
        self._last[key] = Precedent(subject, lead, size_bytes, now_ns, mixed_ns)
        if len(self._last) > _MOST:
            self._last.popitem(last=False)

    def find(self, caller: str, path: str, now_ns: int) -> Precedent | None:
        """Returns what the next message of a caller is like; None where nothing says so."""
        last = self._last.get((caller, path))
        if last is None or now_ns - last.read_ns >= _VALID_NS or now_ns - last.mixed_ns < _VALID_NS:
            return None
        return last
