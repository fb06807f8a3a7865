"""The share of its CPUs that a process has used lately."""


class CpuShare:
    """The share of the CPUs in use between the last two samples; 0 before there are two.

    Units:  `cpu_s` is the time on CPUs that the process has used so far, `now_s` a monotonic clock.
    """

    __slots__ = ("_cpu_s", "_cpus", "_now_s", "value")

    def __init__(self, cpus: float) -> None:
        self._cpus = cpus
        self._cpu_s = self._now_s = -1.0
        self.value = 0.0

    def sample(self, cpu_s: float, now_s: float) -> float:
        """Takes a sample; returns the share since the one before, which is the value from now on."""
        if self._now_s >= 0 and now_s > self._now_s:
            self.value = (cpu_s - self._cpu_s) / ((now_s - self._now_s) * self._cpus)
        self._cpu_s, self._now_s = cpu_s, now_s
        return self.value

    def restart(self) -> None:
        """Forgets the samples, which are too old to say anything."""
        self._cpu_s = self._now_s = -1.0
        self.value = 0.0
