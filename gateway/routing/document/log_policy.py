"""The part of a route that says which requests the prediction log keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gateway.routing.document.field import Field
from gateway.routing.document.quantity import percent, percent_text
from gateway.routing.document.strategy import HOLDOUT

LOG_FIELDS = ("rate", "arms", "keep")
KEEP_FIELDS = ("errors", "first", "scoreBelow", "disagreement")
FIRST_LIMIT = 1_000_000
SCORE_LIMIT = 1e30


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """Shares of the requests that are logged, and what is logged beside them.

    Units: shares in buckets, 1 000 000 are all; `rate` None: what the gateway logs of models without a policy.
    `keep_score_below` None: no score is low.
    """

    rate: int | None = None
    arms: tuple[tuple[str, int], ...] = ()  # sorted by name
    keep_errors: bool = True
    keep_first: int = 0
    keep_score_below: float | None = None
    keep_disagreement: bool = False

    def to_value(self) -> dict[str, object]:
        keep: dict[str, object] = {}
        if not self.keep_errors:
            keep["errors"] = False
        if self.keep_first:
            keep["first"] = self.keep_first
        if self.keep_score_below is not None:
            keep["scoreBelow"] = self.keep_score_below
        if self.keep_disagreement:
            keep["disagreement"] = True
        value: dict[str, object] = {}
        if self.rate is not None:
            value["rate"] = percent_text(self.rate)
        if self.arms:
            value["arms"] = {arm: percent_text(rate) for arm, rate in self.arms}
        return value | ({"keep": keep} if keep else {})


def parse_log_policy(field: Field, arms: Mapping[str, object]) -> LogPolicy | None:
    """The policy; None where it says nothing.

    Raises: InvalidArgument.
    """
    section = field.section(*LOG_FIELDS)
    rate, own, keep = section.field("rate"), section.field("arms"), section.field("keep")
    policy = _kept(keep) if keep is not None else LogPolicy()
    if rate is not None:
        policy = replace(policy, rate=percent(rate))
    if own is not None:
        entries = own.entries(len(arms) + 1, what="arms")
        policy = replace(policy, arms=tuple(_arm_rate(name, value, arms) for name, value in entries))
    return policy if policy != LogPolicy() else None


def _arm_rate(name: str, field: Field, arms: Mapping[str, object]) -> tuple[str, int]:
    if name not in arms and name != HOLDOUT:
        raise Field(name, field.path).refuse(f"an arm of this route ({', '.join(sorted({*arms, HOLDOUT}))})")
    return name, percent(field)


def _kept(field: Field) -> LogPolicy:
    section = field.section(*KEEP_FIELDS)
    errors, first = section.field("errors"), section.field("first")
    score, disagreement = section.field("scoreBelow"), section.field("disagreement")
    return LogPolicy(
        keep_errors=errors.flag() if errors is not None else True,
        keep_first=first.whole(0, FIRST_LIMIT) if first is not None else 0,
        keep_score_below=score.number(-SCORE_LIMIT, SCORE_LIMIT) if score is not None else None,
        keep_disagreement=disagreement.flag() if disagreement is not None else False,
    )
