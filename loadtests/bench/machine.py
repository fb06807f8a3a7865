"""Whether the machine was the same before and after a run, and who else used it."""

import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from gateway.runtime.cpu_quota import allowed_cpus

_TURNS: Final = 200_000
_TRIES: Final = 5


def loop_ms() -> float:
    """CPU time of a fixed Python loop, best of five: a yardstick for how fast this machine is now."""
    best = float("inf")
    for _ in range(_TRIES):
        begin = time.thread_time_ns()
        total = 0
        for turn in range(_TURNS):
            total += turn & 7
        best = min(best, (time.thread_time_ns() - begin) / 1e6)
    return best


def busy_s() -> float:
    """CPU seconds that all processes of this machine have used since it was started, time stolen from it included."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    user, nice, system, _idle, _waiting, irq, soft_irq, stolen = map(int, fields)
    return (user + nice + system + irq + soft_irq + stolen) / os.sysconf("SC_CLK_TCK")


def cores() -> int:
    """The CPUs that this process may use."""
    return allowed_cpus()


@dataclass(frozen=True, slots=True)
class Calm:
    """How quiet a run was. Units: `other_cores` what others used, in cores; the loop in milliseconds."""

    other_cores: float
    loop_before_ms: float
    loop_after_ms: float

    @property
    def drift(self) -> float:
        """How much slower or faster the machine became, as a share."""
        low, high = sorted((self.loop_before_ms, self.loop_after_ms))
        return high / low - 1

    def disturbed(self, *, most_other_cores: float, most_drift: float) -> bool:
        return self.other_cores > most_other_cores or self.drift > most_drift


def describe() -> dict[str, object]:
    """What the figures were measured on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": cores(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "compiled": _says_compiled(),
        **{name: version(name) for name in ("grpcio", "onnxruntime", "ngh2", "uvloop")},
    }


def _says_compiled() -> bool:
    """Whether the gateway that is started is compiled; -P: this process may have found the source tree instead."""
    asked = [sys.executable, "-P", "-c", "from gateway.runtime.build import is_compiled; print(is_compiled())"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip() == "True"
