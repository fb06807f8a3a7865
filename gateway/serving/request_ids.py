"""Ids for requests that came without one."""

import os

from gateway.serving.call import Call


class RequestIds:
    """Gives a request that has no id one that no other worker or run of this worker gives."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex()
        self._count = 0

    def of(self, call: Call) -> str:
        """Returns the id under which the call is recorded and its client told: its own, or one made for it."""
        if call.request_id:
            return call.request_id
        if not call.given_id:
            self._count += 1
            call.given_id = f"{self._prefix}-{self._count:x}"
        return call.given_id
