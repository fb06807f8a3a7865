"""Simulated rollouts, many side by side: traffic of two arms, tick by tick, through the product's own tests."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.rollout.statistics.harm_test import HarmEvidence

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Share = Callable[[np.random.Generator, float], Floats]  # (generator, weight) -> the canary's share of requests, by run


@dataclass(frozen=True)
class Traffic:
    """Requests of one second, by run. Shapes: (runs, 1) each, one stratum."""

    canary: Ints
    stable: Ints
    canary_errors: Ints
    stable_errors: Ints

    def counts(self) -> tuple[Ints, Ints, Ints, Ints]:
        return self.canary, self.stable, self.canary_errors, self.stable_errors


@dataclass(frozen=True)
class Scenario:
    """Steps of a ramp as (weight, seconds), and error rates; the canary's rate changes at `onset_s`."""

    steps: tuple[tuple[float, int], ...]
    stable_rate: float
    canary_rate: float
    onset_s: int = 0
    requests_per_s: int = 500

    def seconds(
        self, runs: int, seed: int, share: Share | None = None, burst: Callable[[int], float] = lambda second: 1.0
    ) -> Iterator[Traffic]:
        """Yields the traffic second by second; `burst` multiplies the rates of both arms."""
        rng = np.random.default_rng(seed)
        second = 0
        for weight, length_s in self.steps:
            shares = share(rng, weight) if share is not None else np.full(runs, weight)
            for _ in range(length_s):
                canary = rng.binomial(self.requests_per_s, shares)
                stable = self.requests_per_s - canary
                rate = (self.stable_rate if second < self.onset_s else self.canary_rate) * burst(second)
                errors = rng.binomial(canary, rate), rng.binomial(stable, self.stable_rate * burst(second))
                yield Traffic(canary[:, None], stable[:, None], errors[0][:, None], errors[1][:, None])
                second += 1


def seconds_to_alarm(
    scenario: Scenario,
    runs: int,
    seed: int,
    *,
    alpha: float = 0.01,
    share: Share | None = None,
    burst: Callable[[int], float] = lambda second: 1.0,
) -> Floats:
    """Returns for each run the second in which the harm test alarmed first, looking at every tick; inf for never."""
    evidence = HarmEvidence.none(1.2, side_by_side=(runs,))
    first = np.full(runs, np.inf)
    for second, traffic in enumerate(scenario.seconds(runs, seed, share, burst), 1):
        evidence = evidence.after(*traffic.counts())
        first = np.where((evidence.log_e >= -np.log(alpha)) & np.isinf(first), second, first)
    return first


def pareto_keys(keys: int, shape: float, runs: int) -> Share:
    """Returns the canary's share where keys have very unequal volumes and each is in the canary or not."""

    def share(rng: np.random.Generator, weight: float) -> Floats:
        volumes = rng.pareto(shape, size=(runs, keys)) + 1
        chosen = (volumes * (rng.random((runs, keys)) < weight)).sum(axis=1)
        shares: Floats = np.clip(chosen / volumes.sum(axis=1), 1e-4, 0.9)
        return shares

    return share
