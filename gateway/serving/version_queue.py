"""What a version's calls wait in, whatever runs them: a session, the steps of an ensemble, a look-up, a load."""

from abc import ABCMeta, abstractmethod

from gateway.serving.call import Call


class VersionQueue(metaclass=ABCMeta):
    """The calls of one version from `put` until each was answered, exactly once. Used on the loop only."""

    @property
    @abstractmethod
    def queued(self) -> int:
        """Returns how many calls wait for a run."""

    @abstractmethod
    def wait_ns(self, level: int, now_ns: int) -> int:
        """Returns after what time a call of that class would be answered; 0 where the queue is short or not known."""

    @abstractmethod
    def put(self, call: Call) -> None:
        """Takes the call, which will be answered, or answers it at once.

        Raises: GatewayError, where the call cannot be taken; it is not answered then.
        """

    @abstractmethod
    def forget(self, call: Call) -> None:
        """Stops counting a call as waiting that was answered from outside (cancelled, or too late)."""

    @abstractmethod
    def end(self) -> None:
        """Keeps nothing of the version any more: it has ended, and has no call left."""
