"""Checks the callers of servicers once more where a request names its model, and shows each only what it may know.

Which method names its model where is said by the table of permissions; what a handler checks itself is left to it.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import wraps
from operator import attrgetter
from typing import Any, Final

from gateway.access.permissions import RPCS, Permission, Scope
from gateway.access.principal import EVERY_ROLE, Principal
from gateway.api.route_messages import principal_of, proven, read_document
from gateway.errors import UnknownModel
from gateway.routing.store.route_draft import missing_draft
from gateway.rpc.handler import answers_by_callback

HIDDEN: Final = "(shown to those alone who may read all models)"
_Unary = Callable[[Any, object], Awaitable[Any]]
_Streaming = Callable[[Any, object], AsyncIterator[Any]]


class ModelGuard:
    """Puts itself before the handlers of servicers. `model_of_draft` tells which model a draft is of, or raises."""

    def __init__(self, model_of_draft: Callable[[str], Awaitable[str]]) -> None:
        self._model_of_draft = model_of_draft

    def guard(self, servicer: object, service: str) -> None:
        """Replaces the servicer's handlers, where the table has something to check.

        Order: before the servicer is added to a server.
        """
        for path, permission in RPCS.items():
            _, of, name = path.split("/")
            if of != service or permission.scope is Scope.HANDLER or not permission.names_models:
                continue
            handler = getattr(servicer, name)
            if answers_by_callback(handler):
                raise TypeError(f"{path} answers by callback: its handler has to check the model")
            streams = inspect.isasyncgenfunction(handler)
            setattr(
                servicer, name, self._streaming(permission, handler) if streams else self._unary(permission, handler)
            )

    def _unary(self, permission: Permission, handler: _Unary) -> _Unary:
        @wraps(handler)
        async def guarded(request: Any, context: object) -> Any:
            principal = principal_of(context)
            await self._check(permission, principal, request)
            return _shown(permission, principal, await handler(request, context))

        return guarded

    def _streaming(self, permission: Permission, handler: _Streaming) -> _Streaming:
        @wraps(handler)
        async def guarded(request: Any, context: object) -> AsyncIterator[Any]:
            principal = principal_of(context)
            await self._check(permission, principal, request)
            async for message in handler(request, context):
                before, principal = principal, proven(context)
                if principal is not before:
                    await self._check(permission, principal, request)
                if _may_see(permission, principal, message):
                    yield _shown(permission, principal, message)

        return guarded

    async def _check(self, permission: Permission, principal: Principal, request: Any) -> None:
        """Raises: UnknownModel, PermissionDenied, NotFound; InvalidArgument for a document that is none."""
        roles = permission.roles or EVERY_ROLE
        if permission.scope is Scope.FIELD:
            named = str(attrgetter(permission.field)(request))
            if named and named.startswith(permission.prefix):
                principal.check(roles, named.removeprefix(permission.prefix))
        elif permission.scope is Scope.DOCUMENT:
            principal.check(roles, read_document(request.document_json).model)
        draft_id = getattr(request, "id", "") if permission.scope in (Scope.DOCUMENT, Scope.DRAFT) else ""
        if draft_id:
            try:
                principal.check(roles, await self._model_of_draft(draft_id))
            except UnknownModel:
                raise missing_draft(draft_id) from None


def _may_see(permission: Permission, principal: Principal, message: Any) -> bool:
    """Returns whether a message of a stream concerns no model, or one that the caller knows."""
    return all(
        _knows(permission, principal, model)
        for listed, path in permission.listed
        if not listed and (model := _text(message, path)) is not None
    )


def _shown(permission: Permission, principal: Principal, answer: Any) -> Any:
    """Returns the answer without what the caller may not know."""
    for name, path in permission.listed:
        if name:
            listed = getattr(answer, name)
            kept = [one for one in listed if _knows(permission, principal, _text(one, path) or "")]
            if len(kept) < len(listed):
                del listed[:]
                listed.extend(kept)
    if permission.hidden and principal.roles_everywhere().isdisjoint(permission.roles):
        for path in permission.hidden:
            *parents, last = path.split(".")
            for holder in _holders(answer, parents):
                if _has(holder, last) and getattr(holder, last):
                    setattr(holder, last, HIDDEN)
    return answer


def _knows(permission: Permission, principal: Principal, model: str) -> bool:
    # What is of no single model, as a healing of the store, concerns all.
    held = principal.roles_on(model.partition("/")[0]) if model else principal.roles_everywhere()
    return not held.isdisjoint(permission.roles)


def _holders(message: Any, names: list[str]) -> Iterator[Any]:
    """Yields the messages at the end of the names, those of repeated fields one by one."""
    if not names:
        yield message
        return
    value = getattr(message, names[0])
    if hasattr(value, "DESCRIPTOR"):
        if message.HasField(names[0]):
            yield from _holders(value, names[1:])
        return
    for one in value:
        yield from _holders(one, names[1:])


def _text(message: Any, path: str) -> str | None:
    """Returns the text at the end of the path; None where a message on the way is not there."""
    *parents, last = path.split(".")
    for name in parents:
        if not message.HasField(name):
            return None
        message = getattr(message, name)
    return str(getattr(message, last))


def _has(message: Any, name: str) -> bool:
    """Returns whether a field counts: one of several alternatives only where it is the one that was taken."""
    alternatives = message.DESCRIPTOR.fields_by_name[name].containing_oneof
    return alternatives is None or message.WhichOneof(alternatives.name) == name
