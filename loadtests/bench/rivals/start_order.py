"""What every rival's start script is told on its command line; nothing but the standard library is needed for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StartOrder:
    """What to serve and where. `port` is measured; `spare_ports` are for what else a server insists on opening."""

    repository: Path
    folder: Path  # empty, the server's own
    workers: int
    port: int
    spare_ports: tuple[int, int]

    @property
    def arguments(self) -> list[str]:
        return [str(self.repository), str(self.folder), *map(str, (self.workers, self.port, *self.spare_ports))]

    @classmethod
    def of(cls, arguments: Sequence[str]) -> "StartOrder":
        """The order that has these `arguments`."""
        repository, folder, *numbers = arguments
        workers, port, first, second = map(int, numbers)
        return cls(Path(repository), Path(folder), workers, port, (first, second))
