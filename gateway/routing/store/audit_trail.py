"""Who changed what, when and why: the changes of all models from the log, newest first."""

from gateway.errors import InvalidArgument
from gateway.routing.store.change import ChangeEntry, parse_entry
from gateway.routing.store.redis_store import RedisStore
from gateway.routing.store.store_reply import stream_entries

LIMIT_DEFAULT = 50
LIMIT = 1000
PAGE = 200


async def audit(store: RedisStore, *, limit: int = 0, model: str = "", actor: str = "") -> list[ChangeEntry]:
    """The newest changes, at most `limit` (50 unless told), of one model and of one actor if they are named.

    The log keeps the newest 10 000 or so. What a commit did not write is left out.
    Raises: InvalidArgument; StoreUnavailable.
    """
    if not 0 <= limit <= LIMIT:
        raise InvalidArgument(f"limit: {limit} is not 1 to {LIMIT} (0: {LIMIT_DEFAULT})")
    wanted = limit or LIMIT_DEFAULT
    entries: list[ChangeEntry] = []
    below = "+"
    while len(entries) < wanted:
        page = stream_entries(await store.link.call("XREVRANGE", store.keys.log, below, "-", "COUNT", PAGE))
        for entry_id, fields in page:
            try:
                entry = parse_entry(entry_id, fields)
            except InvalidArgument:
                continue
            if model in ("", entry.model) and actor in ("", entry.actor):
                entries.append(entry)
        if len(page) < PAGE:
            break
        below = f"({page[-1][0]}"
    return entries[:wanted]
