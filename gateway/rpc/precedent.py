"""What a message is before it is read, on a transport that does not show its beginning: like the caller's last one."""

from collections import OrderedDict
from typing import Final

_VALID_NS: Final = 1_000_000_000
_FORGOTTEN_NS: Final = 60_000_000_000  # who asks for a model only now and then is not judged by others
_MOST: Final = 4096


class Precedent:
    """The last message that was read of one caller and method.

    `subject` is what its beginning says of who serves it; `denied` says that the caller may not know of that.
    Units: `read_ns` is when it was read, `mixed_ns` when a message was read whose subject was not that of the one
    before, `probed_ns` when a call was let go on to show what its caller wants now, on the monotonic clock;
    `likely_bytes` is what the next one has at least, if it is like the last two.
    """

    __slots__ = ("denied", "lead", "likely_bytes", "mixed_ns", "probed_ns", "read_ns", "size_bytes", "subject")

    def __init__(
        self, subject: object, lead: bytes, size_bytes: int, likely_bytes: int, read_ns: int, mixed_ns: int
    ) -> None:
        self.subject = subject
        self.lead = lead
        self.size_bytes = size_bytes
        self.likely_bytes = likely_bytes
        self.denied = False
        self.read_ns = read_ns
        self.mixed_ns = mixed_ns
        self.probed_ns = read_ns

    def probes(self, now_ns: int) -> bool:
        """Returns whether the next call goes on whatever is foreseen, for its own message to tell.

        While none is read one call in a second does, and only one: where nobody is let in the others would all be read
        to be refused.
        """
        if now_ns - max(self.read_ns, self.probed_ns) < _VALID_NS:
            return False
        self.probed_ns = now_ns
        return True

    def decides(self, now_ns: int) -> bool:
        """Returns whether the next call is judged by the subject; it is not within a minute of messages that differ."""
        return not self.denied and now_ns - self.mixed_ns >= _FORGOTTEN_NS


class Precedents:
    """Remembers one message for each caller and method for a minute, of those that were heard last."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str], Precedent] = OrderedDict()

    def note(self, caller: str, path: str, subject: object, lead: bytes, size_bytes: int, now_ns: int) -> None:
        """Remembers a message that was read."""
        key = caller, path
        before = self._last.pop(key, None)
        mixed_ns, likely_bytes = now_ns - _FORGOTTEN_NS, 0
        if before is not None:
            mixed_ns = before.mixed_ns if before.subject == subject else now_ns
            likely_bytes = min(size_bytes, before.size_bytes)
        self._last[key] = Precedent(subject, lead, size_bytes, likely_bytes, now_ns, mixed_ns)
        if len(self._last) > _MOST:
            self._last.popitem(last=False)

    def deny(self, caller: str, path: str) -> None:
        """Has no call judged by the last message of a caller, who may not know of what it asked for."""
        if (last := self._last.get((caller, path))) is not None:
            last.denied = True

    def find(self, caller: str, path: str, now_ns: int) -> Precedent | None:
        """Returns the last message of a caller; None where there was none in the last minute."""
        last = self._last.get((caller, path))
        return last if last is not None and now_ns - last.read_ns < _FORGOTTEN_NS else None
