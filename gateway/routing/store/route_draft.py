"""Drafts of routes in the store: proposed by one person, approved by others, and then applied or rejected.

A draft has an author, who alone may edit it, and approvals, which are of one edit: another edit begins without any.
Nobody approves a draft of his own. A draft is forgotten a week after the last thing that happened to it.
"""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from gateway.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, StoreUnavailable
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.field import shown
from gateway.routing.document.notation import parse_json
from gateway.routing.document.version_label import APPROVALS_LIMIT
from gateway.routing.store.change import Change
from gateway.routing.store.redis_store import AUDIT_LENGTH, RedisStore
from gateway.routing.store.store_reply import many, text, text_digest
from gateway.routing.store.store_script import DRAFT

KEPT_MS = 7 * 86_400_000
DRAFTS_LISTED = 200
OPEN, APPLIED, REJECTED = "open", "applied", "rejected"
_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Draft:
    """A proposed document; `edit` counts from 1. `revision` is what it became, 0 if nothing.

    Units: `edited_at_us` since the epoch, by the store's clock.
    """

    id: str
    edit: int
    document: RouteDocument
    base_revision: int
    author: str
    reason: str
    needed: int
    approvals: tuple[str, ...]
    state: str
    edited_at_us: int
    decided_by: str = ""
    why: str = ""
    revision: int = 0

    @property
    def approved(self) -> bool:
        return len(self.approvals) >= self.needed


class Drafts:
    """The drafts of one environment.

    Raises: StoreUnavailable from every method; NotFound (no such draft, or it has expired), FailedPrecondition (it is
            decided, or was edited since it was seen) and PermissionDenied (author and approver are one) from changes.
    """

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def put(
        self,
        document: RouteDocument,
        base_revision: int,
        change: Change,
        *,
        draft_id: str = "",
        edit: int = 0,
        needed: int,
        own_id: str = "",
    ) -> Draft:
        """The new draft, or the next edit of one; `edit` is the one that its author saw, 0 for any.

        A new one gets the id `own_id`; the draft that has it already stays as it is.
        """
        if not 1 <= needed <= APPROVALS_LIMIT:
            raise InvalidArgument(f"approvals: {needed} is not 1 to {APPROVALS_LIMIT}")
        name = draft_id or own_id or uuid.uuid4().hex[:12]
        seen = ("" if not edit else str(edit)) if draft_id else "0"
        wording = document.to_json()
        own: Sequence[str | int] = (document.model, base_revision, wording, text_digest(wording), needed)
        try:
            await self._change("put", name, seen, change, own)
        except FailedPrecondition:
            if draft_id or not own_id:
                raise
        return await self.get(name)

    async def approve(self, draft_id: str, change: Change, *, edit: int = 0) -> Draft:
        """The draft with one approval more, or the same if the approver has approved this edit before."""
        await self._change("approve", draft_id, str(edit or ""), change, ())
        return await self.get(draft_id)

    async def close(self, draft_id: str, state: str, change: Change, *, edit: int, revision: int = 0) -> Draft:
        """The draft, decided."""
        await self._change("close", draft_id, str(edit or ""), change, (state, revision))
        return await self.get(draft_id)

    async def get(self, draft_id: str) -> Draft:
        words = [text(word) for word in many(await self._store.link.call("HGETALL", self._key(draft_id)))]
        if not words:
            raise missing_draft(draft_id)
        return _draft(dict(zip(words[::2], words[1::2], strict=True)))

    async def list(self) -> list[Draft]:
        """The drafts that are kept, the newest first, at most 200."""
        names = many(await self._store.link.call("ZRANGE", self._store.keys.drafts, 0, DRAFTS_LISTED - 1, "REV"))
        drafts = []
        for name in names:
            try:
                drafts.append(await self.get(text(name)))
            except NotFound:
                continue
        return sorted(drafts, key=lambda draft: -draft.edited_at_us)

    async def _change(self, step: str, draft_id: str, seen: str, change: Change, own: Sequence[str | int]) -> None:
        if not change.actor:
            raise InvalidArgument("change.actor: empty; a draft is written and approved by somebody")
        names = self._store.keys
        keys = [self._key(draft_id), names.drafts, names.audit, names.chain]
        who = (change.actor, KEPT_MS, change.reason, change.source, AUDIT_LENGTH)
        answer = await self._store.link.script(DRAFT, keys, [step, draft_id, seen, *who, *own])
        match text(answer[0]):
            case "missing":
                raise missing_draft(draft_id)
            case "edit":
                raise FailedPrecondition(
                    f"draft {draft_id!r} is at edit {text(answer[1])}, not {seen}: look at it again"
                )
            case "state":
                raise FailedPrecondition(f"draft {draft_id!r} is {text(answer[1])} already")
            case "author" if step == "put":
                raise PermissionDenied(f"draft {draft_id!r} is of {text(answer[1])!r}, who alone may edit it")
            case "author":
                raise PermissionDenied(f"draft {draft_id!r} is {change.actor!r}'s own: somebody else must approve it")

    def _key(self, draft_id: str) -> str:
        if not _ID.fullmatch(draft_id):
            raise InvalidArgument(f"draft: {shown(draft_id)} is not an id of 12 hexadecimal digits")
        return self._store.keys.draft(draft_id)


def missing_draft(draft_id: str) -> NotFound:
    """The error for a draft that is not there, or that is not to be told of."""
    return NotFound(f"there is no draft {draft_id!r}; a draft is kept for 7 days")


def _draft(values: Mapping[str, str]) -> Draft:
    try:
        return Draft(
            id=values["id"],
            edit=int(values["edit"]),
            document=parse_json(values["document"]),
            base_revision=int(values["base"]),
            author=values["author"],
            reason=values["reason"],
            needed=int(values["needed"]),
            approvals=msgspec.json.decode(values["approvals"], type=tuple[str, ...]),
            state=values["state"],
            edited_at_us=int(values["at"]),
            decided_by=values.get("decided_by", ""),
            why=values.get("why", ""),
            revision=int(values.get("revision", 0)),
        )
    except (KeyError, ValueError, TypeError, InvalidArgument) as error:
        raise StoreUnavailable(f"the routing store is damaged: a draft is none ({error})") from None
