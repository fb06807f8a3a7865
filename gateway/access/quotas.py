"""The quotas of this worker: who may do how much, and in which class.

1. At the head of a request, before its body is read, the caller is known: quotas that name no model are taken there.
2. Quotas of models and of bytes are taken as soon as the model's name and the message's length are known, before
   tensors are decoded. A call that one of them refuses gives back what it took from the others.
3. A quota is for the whole host; each worker enforces its share, and says so in its errors.

Nothing here waits, and nothing is kept of a caller whose buckets are full.
"""

from collections.abc import Callable
from random import random
from time import monotonic_ns
from typing import Final

from gateway.access.priority import Priority
from gateway.access.quota_pass import ModelRules, QuotaPass
from gateway.access.quota_rules import PriorityRule, Quota, QuotaRules
from gateway.access.quota_use import QuotaCounts, QuotaUse
from gateway.backoff import retry_after_ms
from gateway.errors import Code, ResourceExhausted

OTHER: Final = "other"  # the label of those whom the file does not name one by one
# Of each kind so many are remembered; what is beyond that is worked out again, or shares a bucket.
_MOST_CALLERS: Final = 4096
_MOST_MODELS: Final = 1024
_MOST_USES: Final = 4096
_FORGET_EVERY_NS: Final = 1_000_000_000  # where that made little room: calls without end would each look at all buckets
_WORDS: Final = {"requests": "requests per second", "concurrency": "requests at a time", "bytes": "bytes per second"}


class CallerQuotas:
    """What the rules say of one caller."""

    __slots__ = ("_identity", "_models", "_priorities", "_quotas", "_tenant", "head", "with_models")

    def __init__(
        self,
        quotas: "Quotas",
        identity: str,
        tenant: str,
        head: tuple[QuotaUse, ...],
        with_models: tuple[Quota, ...],
        priorities: tuple[PriorityRule, ...],
    ) -> None:
        self._quotas = quotas
        self._identity = identity
        self._tenant = tenant
        self._priorities = priorities
        self._models: dict[str, ModelRules] = {}
        self.head = head
        self.with_models = with_models

    def of_model(self, model: str) -> ModelRules:
        rules = self._models.get(model)
        if rules is None:
            if len(self._models) >= _MOST_MODELS:
                self._models.clear()
            uses = tuple(
                self._quotas.use(quota, self._identity, self._tenant)
                for quota in self.with_models
                if quota.selector.takes_model(model)
            )
            own = all(use.who != OTHER for use in uses)
            priority, honours = Priority.DEFAULT, False
            for rule in self._priorities:
                if rule.selector.takes_model(model):
                    priority, honours = rule.priority, rule.request_priority
                    break
            rules = ModelRules(uses, priority, honours_request=honours)
            if own:
                self._models[model] = rules
        return rules

    def refused(self, use: QuotaUse, limit: str, wait_ns: int) -> ResourceExhausted:
        return self._quotas.refusal(use, limit, wait_ns)


class Quotas:
    """Lets calls in by the rules in force. `refused` is told the code of each call that it does not let in."""

    __slots__ = (
        *("_callers", "_clock", "_counts", "_draw", "_forget_from_ns", "_refused", "_uses"),
        *("labels", "rules", "workers"),
    )

    def __init__(
        self,
        rules: QuotaRules,
        *,
        workers: int,
        refused: Callable[[Code], None],
        clock: Callable[[], int] = monotonic_ns,
        draw: Callable[[], float] = random,
    ) -> None:
        self.workers = workers
        self._refused = refused
        self._clock = clock
        self._draw = draw
        self._uses: dict[tuple[str, str], QuotaUse] = {}
        self._counts: dict[tuple[str, str], QuotaCounts] = {}
        self._callers: dict[tuple[str, str], CallerQuotas] = {}
        self._forget_from_ns = 0
        self.follow(rules)

    def follow(self, rules: QuotaRules) -> None:
        """Puts these rules in force; what is in use of a quota that keeps its name stays counted."""
        self.rules = rules
        self.labels = rules.names()
        self._callers = {}
        quotas = {quota.name: quota for quota in rules.quotas}
        kept: dict[tuple[str, str], QuotaUse] = {}
        for (name, who), use in self._uses.items():
            quota = quotas.get(name)
            if quota is not None and bool(quota.per) == bool(use.quota.per):
                use.follow(quota, self._counts_of(quota, who), workers=self.workers)
                kept[name, who] = use
        self._uses = kept

    def enter(self, identity: str, tenant: str) -> QuotaPass:
        """Lets the call of a caller in, by the quotas that do not depend on the model.

        Raises: ResourceExhausted; then nothing is held.
        """
        caller = self._callers.get((identity, tenant))
        if caller is None:
            caller = self._caller(identity, tenant)
        return QuotaPass(caller, caller.head, clock=self._clock)

    def use(self, quota: Quota, identity: str, tenant: str) -> QuotaUse:
        """Returns the bucket of the quota that the caller draws from."""
        who = "" if not quota.per else identity if quota.per == "identity" else tenant
        key = (quota.name, who)
        use = self._uses.get(key)
        if use is None:
            if len(self._uses) >= _MOST_USES:
                self._forget_idle()
                if len(self._uses) >= _MOST_USES:  # of one tenant all, maybe: it is not to use up what others share
                    who = OTHER
                    by_tenant = quota.per == "identity" and len(self._uses) < 2 * _MOST_USES
                    key = (quota.name, f"{OTHER} of {tenant}" if by_tenant else OTHER)
            use = self._uses.get(key)
        if use is None:
            use = self._uses[key] = QuotaUse(quota, who, self._counts_of(quota, who), workers=self.workers)
        return use

    def refusal(self, use: QuotaUse, limit: str, wait_ns: int) -> ResourceExhausted:
        """Counts a refused call and returns what its caller is told.

        Units: the caller is told to wait for the time that the bucket needs, and up to a half longer, so that those
        who are refused together do not come back together.
        """
        use.counts.refused[limit] = use.counts.refused.get(limit, 0) + 1
        self._refused(Code.RESOURCE_EXHAUSTED)
        draw = self._draw()
        if wait_ns:
            soonest_ms = -(-wait_ns // 1_000_000)
            after_ms = soonest_ms + int(draw * soonest_ms / 2)
        else:
            after_ms = retry_after_ms(draw)
        quota = use.quota
        whole = {
            "requests": quota.requests_per_second,
            "concurrency": quota.concurrency,
            "bytes": quota.bytes_per_second,
        }[limit]
        share = use.max_in_flight if limit == "concurrency" else whole / self.workers
        scope = f" of {quota.per} {use.who!r}" if quota.per and use.who and use.who != OTHER else ""
        return ResourceExhausted(
            f"quota {quota.name!r}{scope} is used up: {share:g} {_WORDS[limit]} in this worker, its share of {whole:g} "
            f"over {self.workers} worker{'' if self.workers == 1 else 's'}; retry in {after_ms} ms",
            retry_after_ms=after_ms,
        )

    def sums(self) -> dict[str, object]:
        """Returns what was let in and what was refused, by quota and label: a tree that adds up over workers."""
        tree: dict[str, object] = {}
        for (name, label), counts in self._counts.items():
            branch = tree.setdefault(name, {})
            assert isinstance(branch, dict)
            branch[label] = {"admitted": counts.admitted, "bytes": counts.bytes, "refused": dict(counts.refused)}
        return tree

    def in_use(self) -> dict[str, dict[str, int]]:
        """Returns how many calls each quota counts in flight in this worker, by label."""
        tree: dict[str, dict[str, int]] = {quota.name: {} for quota in self.rules.quotas}
        for (name, who), use in self._uses.items():
            labels = tree[name]
            label = self._label(who)
            labels[label] = labels.get(label, 0) + use.in_flight
        return tree

    def present(self, most: int = 100) -> list[dict[str, object]]:
        """Returns each quota with its limits and those who use it now, the busiest first, as JSON can hold it."""
        now_ns = self._clock()
        return [
            {
                "name": quota.name,
                "per": quota.per,
                "identities": list(quota.selector.identities),
                "tenants": list(quota.selector.tenants),
                "models": list(quota.selector.models),
                "requests_per_second": quota.requests_per_second,
                "burst": quota.burst,
                "concurrency": quota.concurrency,
                "bytes_per_second": quota.bytes_per_second,
                "users": [
                    {
                        "who": use.who,
                        "in_flight": use.in_flight,
                        "rate": use.rate(now_ns),
                        "requests_left": use.requests_left(now_ns),
                        "bytes_left": use.bytes_left(now_ns),
                    }
                    for use in self._busiest(quota.name, now_ns)[:most]
                ],
                "refused": sum(
                    sum(counts.refused.values()) for (name, _), counts in self._counts.items() if name == quota.name
                ),
            }
            for quota in self.rules.quotas
        ]

    def _busiest(self, name: str, now_ns: int) -> list[QuotaUse]:
        uses = [use for (quota, _), use in self._uses.items() if quota == name]
        return sorted(uses, key=lambda use: (-use.in_flight, -use.rate(now_ns), use.who))

    def _caller(self, identity: str, tenant: str) -> CallerQuotas:
        if len(self._callers) >= _MOST_CALLERS:
            self._callers.clear()
        quotas = [quota for quota in self.rules.quotas if quota.selector.takes_caller(identity, tenant)]
        caller = CallerQuotas(
            self,
            identity,
            tenant,
            tuple(self.use(quota, identity, tenant) for quota in quotas if not quota.selector.models),
            tuple(quota for quota in quotas if quota.selector.models),
            tuple(rule for rule in self.rules.priorities if rule.selector.takes_caller(identity, tenant)),
        )
        if all(use.who != OTHER for use in caller.head):  # else it has its own bucket as soon as there is room
            self._callers[identity, tenant] = caller
        return caller

    def _label(self, who: str) -> str:
        return who if not who or who in self.labels else OTHER

    def _counts_of(self, quota: Quota, who: str) -> QuotaCounts:
        key = (quota.name, self._label(who))
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = QuotaCounts()
        return counts

    def _forget_idle(self) -> None:
        """Forgets the buckets that are as good as new, and callers, who are worked out again; not at each call, where
        few are."""
        now_ns = self._clock()
        if now_ns < self._forget_from_ns:
            return
        self._uses = {key: use for key, use in self._uses.items() if not use.is_idle(now_ns)}
        self._callers = {}
        self._forget_from_ns = now_ns + (_FORGET_EVERY_NS if len(self._uses) > _MOST_USES // 2 else 0)
