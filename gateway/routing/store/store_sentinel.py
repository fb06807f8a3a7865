"""The server that the sentinels name.

Source: redis.io, "Guidelines for Redis clients with support for Redis Sentinel", steps 1 to 3.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from gateway.errors import StoreUnavailable
from gateway.routing.store.store_address import Node
from gateway.routing.store.store_reply import Reply, number, text

ANSWER_S: Final = 0.4  # of one sentinel: two that hang leave a command the time to be answered
RENEW_S: Final = 10.0


class Sentinels:
    """The sentinels of one service; the one that answered last is asked first.

    `ask(node, words)` asks one of them and raises StoreUnavailable if it does not answer.
    """

    def __init__(
        self, nodes: Sequence[Node], service: str, ask: Callable[[Node, Sequence[str]], Awaitable[Reply]]
    ) -> None:
        self._nodes = list(nodes)
        self._service = service
        self._ask = ask

    async def master(self) -> Node:
        """The server that takes writes, as the first sentinel that knows it says.

        Raises: StoreUnavailable if none does.
        """
        silent, why = 0, ""
        for node in tuple(self._nodes):
            try:
                async with asyncio.timeout(ANSWER_S):
                    answer = await self._ask(node, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service))
            except (StoreUnavailable, TimeoutError) as error:
                silent, why = silent + 1, str(error) or f"one did not within {ANSWER_S:g} s"
                continue
            if isinstance(answer, list) and len(answer) == 2:
                self._nodes.remove(node)
                self._nodes.insert(0, node)
                return Node(text(answer[0]), number(answer[1]))
        missing = f"answers: {why}" if silent == len(self._nodes) else f"knows the service {self._service!r}"
        raise StoreUnavailable(f"the routing store is not to be found: no sentinel {missing}")
