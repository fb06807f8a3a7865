"""The highest rate that holds: doubled until it does not, then narrowed down. Pure."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class CapacitySearch:
    """Returns rates to try, one after the other. Units: calls per second; `precision` is a share."""

    first: float
    precision: float = 0.1
    most: float = 1e6
    held: float = 0.0
    broken: float = float("inf")
    tried: list[tuple[float, bool]] = field(default_factory=list)

    def following(self) -> float | None:
        """Returns the rate to try next, None where the capacity is known well enough."""
        if not self.tried:
            return self.first
        if self.broken == float("inf"):
            return min(2 * self.held, self.most) if self.held < self.most else None
        if not self.held:
            return self.broken / 2 if self.broken > self.first / 64 else None
        if self.broken / self.held <= 1 + self.precision:
            return None
        return float((self.held * self.broken) ** 0.5)

    def note(self, rate: float, held: bool) -> None:
        """That rate held, or it did not."""
        self.tried.append((rate, held))
        if held:
            self.held = max(self.held, rate)
        else:
            self.broken = min(self.broken, rate)
