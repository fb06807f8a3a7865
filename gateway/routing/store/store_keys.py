"""The names of what the gateway keeps in Redis.

All keys of an environment share one hash tag, so they lie in one slot and a script may touch them together.

epoch      string  identity of the store, made at the first commit
rev        string  the newest revision; dense, over all models
accepted   string  an epoch that an operator told the workers to follow
routes     hash    model -> committed route
log        stream  id `<revision>-0`: every change of a route with who, when and why; the feed
audit      stream  id `<sequence>-0`: all that was changed, an entry with the hash of the one before it (chain.lua)
chain      hash    sequence and hash of the newest entry of `audit`, and of the newest no longer kept; the newest heal
hist:MODEL stream  the same entries of one model, the newest 200
idem:KEY   string  the answer to a commit, for a day
worker:ID  hash    a worker's acknowledgement, for 15 s
workers    zset    worker ids by when they were last seen
acks       stream  every acknowledgement as it comes
draft:ID   hash    a proposed route with its approvals, for a week
drafts     zset    draft ids by when they are forgotten
rollouts   hash    model -> the state of its rollout
rollouts:damaged hash    model -> a state that could not be read; `*` -> when all were set aside, in ms
judge      string  the process that judges rollouts, for 5 s
bandits    hash    model -> the state of its bandit
aliases    hash    model and label -> what was made of the alias that the label follows
counts:REV hash    worker id -> what its arms did at this revision, for a week
"""

import re
import uuid
from dataclasses import dataclass

from gateway.errors import InvalidArgument

_ENVIRONMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class StoreKeys:
    """Key names of one environment.

    Raises: InvalidArgument if the environment could change what a key means.
    """

    environment: str

    def __post_init__(self) -> None:
        if not _ENVIRONMENT.fullmatch(self.environment):
            raise InvalidArgument(f"environment: {self.environment!r} is not 1 to 64 letters, digits, '.', '_' or '-'")

    def _key(self, name: str) -> str:
        return f"{{gw:{self.environment}}}:{name}"

    @property
    def every(self) -> str:
        """The pattern of all keys of the environment."""
        return self._key("*")

    @property
    def kinds(self) -> dict[str, str]:
        """The type of each key that there is one of, as TYPE names it."""
        return {
            self.epoch: "string",
            self.revision: "string",
            self.routes: "hash",
            self.log: "stream",
            self.accepted: "string",
            self.acknowledgements: "stream",
            self.workers: "zset",
            self.drafts: "zset",
            self.audit: "stream",
            self.chain: "hash",
            self.rollouts: "hash",
            self.damaged_rollouts: "hash",
            self.judge: "string",
            self.bandits: "hash",
            self.aliases: "hash",
        }

    @property
    def epoch(self) -> str:
        return self._key("epoch")

    @property
    def revision(self) -> str:
        return self._key("rev")

    @property
    def accepted(self) -> str:
        return self._key("accepted")

    @property
    def routes(self) -> str:
        return self._key("routes")

    @property
    def log(self) -> str:
        return self._key("log")

    @property
    def audit(self) -> str:
        return self._key("audit")

    @property
    def chain(self) -> str:
        return self._key("chain")

    @property
    def workers(self) -> str:
        return self._key("workers")

    @property
    def acknowledgements(self) -> str:
        return self._key("acks")

    def history(self, model: str) -> str:
        return self._key(f"hist:{model}")

    def idempotency(self, key: str) -> str:
        return self._key(f"idem:{key}")

    def recorded(self, what: str) -> str:
        """The key that remembers that this was recorded; of its own each time where nothing says what it is."""
        return self.idempotency(f"audit:{what or uuid.uuid4().hex}")

    @property
    def drafts(self) -> str:
        return self._key("drafts")

    def draft(self, draft_id: str) -> str:
        return self._key(f"draft:{draft_id}")

    @property
    def rollouts(self) -> str:
        return self._key("rollouts")

    @property
    def damaged_rollouts(self) -> str:
        return self._key("rollouts:damaged")

    @property
    def bandits(self) -> str:
        return self._key("bandits")

    @property
    def aliases(self) -> str:
        return self._key("aliases")

    def alien(self, key: str, at_us: int) -> str:
        """The key under which what is not ours is kept that stood at `key` (heal.lua names it the same way)."""
        return f"{key}:alien:{at_us}"

    @property
    def judge(self) -> str:
        return self._key("judge")

    def counts(self, revision: int | str) -> str:
        return self._key(f"counts:{revision}")

    def worker(self, worker_id: str) -> str:
        return self._key(f"worker:{worker_id}")
