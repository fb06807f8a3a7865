"""The active routes, read from the store when something was committed: for those who look often and serve nothing."""

from collections.abc import Mapping

from gateway.routing.decision.route import Route
from gateway.routing.store.history import readable
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.store_reply import many, number, text


class RouteReader:
    """Raises: StoreUnavailable while the store is away."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._routes: Mapping[str, Route] = {}
        self._seen = ("", -1)

    async def routes(self) -> Mapping[str, Route]:
        """Every active route that can be read, by model."""
        link, keys = self._store.link, self._store.keys
        epoch, revision = many(await link.call("MGET", keys.epoch, keys.revision))
        if (text(epoch), number(revision)) != self._seen:
            state = await self._store.state()
            routes = {model: readable(content) for model, content in state.texts.items() if content}
            self._routes = {model: route for model, route in routes.items() if route is not None}
            self._seen = state.epoch, state.revision
        return self._routes
