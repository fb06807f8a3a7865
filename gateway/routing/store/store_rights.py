"""The least rights on the routing store: which commands each user needs, and on which keys.

This table is what `gateway redis-acl` prints and docs/redis.md shows. A test compares it with the commands that stand
in the sources of this folder, and runs the gateway under its users.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.routing.store.store_keys import StoreKeys

_DEFAULT = "default"  # the environment of who names none
_CONNECTS = ("ping", "client|setname", "select", "role", "multi", "exec")
_FOLLOWS = (
    *("get", "mget", "type", "exists", "strlen", "hget", "hmget", "hkeys", "hstrlen", "hgetall", "pttl", "zrange"),
    *("xread", "xrange", "xrevrange", "fcall_ro"),
)
_ACKNOWLEDGES = ("del", "hset", "pexpire", "zadd", "zrem", "zremrangebyscore", "xadd")
_RECORDS = (
    *("fcall", "time", "type", "exists", "get", "set", "hget", "hmget", "hset"),
    *("xadd", "xlen", "xrange", "xtrim", "xinfo|stream"),
)
_CHANGES = ("fcall", "wait", "set", "hdel", "rename", "time", "xinfo|stream", "xlen", "xtrim")


@dataclass(frozen=True, slots=True)
class StoreGrant:
    """Commands, and the keys on which they may be used: patterns with what may be done there (R, RW)."""

    commands: tuple[str, ...]
    keys: tuple[tuple[str, str], ...]

    def words(self) -> Iterator[str]:
        yield from (f"%{access}~{pattern}" for access, pattern in self.keys)
        yield from (f"+{command}" for command in dict.fromkeys(self.commands))


@dataclass(frozen=True, slots=True)
class StoreUser:
    """A user of the store: what it may do, and what it may do on a few keys beside."""

    name: str
    grant: StoreGrant
    beside: StoreGrant | None = None

    def command(self) -> str:
        """The command that makes this user; its password is to be put in."""
        password = f">{self.name.split('-')[1]}-password"
        words = ["ACL SETUSER", self.name, "on", password, "resetchannels", "resetkeys", "clearselectors", "-@all"]
        words += self.grant.words()
        if self.beside is not None:
            words.append(f"({' '.join(self.beside.words())})")
        return " ".join(words)


def users(environment: str) -> tuple[StoreUser, ...]:
    """The users of an environment: a worker's host, and one at which operators work.

    Their names end with another than the default: one name for two would have the rights of the second alone.
    A worker may add to the audit trail, because loading a model is recorded too, and not delete it.
    Raises: InvalidArgument for a name that no environment has.
    """
    names = StoreKeys(environment)
    every = names.every
    own = (
        ("R", every),
        *(("RW", key) for key in (names.worker("*"), names.workers, names.acknowledgements, names.counts("*"))),
    )
    trail = tuple(("RW", key) for key in (names.audit, names.chain, names.idempotency("audit:*")))
    of = "" if environment == _DEFAULT else f"-{environment}"
    serves = StoreGrant(_CONNECTS + _FOLLOWS + _ACKNOWLEDGES, own)
    changes = StoreGrant(_CONNECTS + _FOLLOWS + _ACKNOWLEDGES + _CHANGES, (("RW", every),))
    worker = StoreUser(f"gateway-worker{of}", serves, StoreGrant(_RECORDS, trail))
    return worker, StoreUser(f"gateway-control{of}", changes)
