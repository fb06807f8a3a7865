"""Places for those who follow what goes on: few, as each holds a connection or a file, and none takes them all."""

from collections import Counter

from gateway.access.principal import Principal
from gateway.errors import Unavailable


class Audience:
    """At most `limit` who follow at once; of these at most half, but one at least, are of one tenant, or of one name
    that has no tenant. Where nobody proves who it is all are alike. `what` says in errors what they follow.
    """

    def __init__(self, limit: int, what: str) -> None:
        self.limit = limit
        self._what = what
        self._held: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return self._held.total()

    def join(self, principal: Principal) -> None:
        """Takes a place. Raises: Unavailable."""
        who = party(principal)
        if len(self) >= self.limit:
            raise Unavailable(f"{len(self)} callers {self._what}, the limit is {self.limit}")
        share = max(1, self.limit // 2)
        if any(who) and self._held[who] >= share:
            name = principal.tenant or principal.name
            raise Unavailable(f"{self._held[who]} callers of {name!r} {self._what}, {share} of one may")
        self._held[who] += 1

    def leave(self, principal: Principal) -> None:
        """Gives the place back that this principal has taken."""
        who = party(principal)
        self._held[who] -= 1
        if not self._held[who]:
            del self._held[who]


def party(principal: Principal) -> tuple[str, str]:
    """Returns whom a caller belongs to where places are shared out: a tenant, or else a name; those who have proven
    nothing have neither."""
    return (principal.tenant, "") if principal.tenant else ("", principal.name)
