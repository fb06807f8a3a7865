"""The clients of Google's and Microsoft's object stores, by obstore.

Credentials come from where the field's tools look for them: `GOOGLE_APPLICATION_CREDENTIALS`, the machine's or the
pod's identity; `AZURE_STORAGE_ACCOUNT_KEY`, `AZURE_CLIENT_ID` with a secret or a federated token, a managed identity.
Without any, of Google's store only what is public can be read, by `GOOGLE_SKIP_SIGNATURE`; likewise of Microsoft's.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Final

from loaders.errors import SourceChanged, SourceNotFound, SourceUnreadable, UnsupportedUri
from loaders.object_client import Options, not_made
from loaders.remote_copy import SMALL_BYTES, RemoteFile

if TYPE_CHECKING:
    from obstore.store import AzureConfig, AzureStore, ClientConfig, GCSStore, RetryConfig

_CHUNK: Final = 1 << 20
_PAGE: Final = timedelta(seconds=60)  # of one answer that is no object
_PAGES_S: Final = 300.0
_OBJECT: Final = timedelta(hours=6)  # of a whole one
_STATUS: Final = re.compile(r"(?<=status code: )(?P<code>[1-5][0-9]{2})( [A-Z][A-Za-z ]{1,40})?")


class ObstoreClient:
    """A client of one bucket of Google's, or of one container of Microsoft's."""

    def __init__(
        self, make: Callable[[timedelta], "GCSStore | AzureStore"], place: str, clock: Callable[[], float] = monotonic
    ) -> None:
        """`make` returns a store whose requests take no longer than that. Raises: UnsupportedUri."""
        with _made():
            # Objects may take hours; whoever drips a page would hold up every other repository.
            self._store, self._pages = make(_OBJECT), make(_PAGE)
        self._place = place
        self._clock = clock

    @property
    def place(self) -> str:
        """Returns the address and the bucket."""
        return self._place

    def listed(self, prefix: str) -> Iterator[tuple[str, RemoteFile]]:
        """Yields key and object. Raises: as `ObjectClient`."""
        from obstore import list as listed

        until_s = self._clock() + _PAGES_S
        with _explained("the model repository"):
            for page in listed(self._pages, prefix or None):
                for one in page:
                    yield one["path"], RemoteFile(one["path"], one["size"], one["e_tag"] or str(one["last_modified"]))
                if self._clock() > until_s:
                    raise SourceUnreadable(f"the model repository cannot be listed within {_PAGES_S:g} s")

    def content(self, one: RemoteFile, name: str, offset: int) -> Iterator[bytes]:
        """Yields the object's bytes. Raises: as `ObjectClient`."""
        from obstore import get

        with _explained(ascii(name[:80])):
            if offset:
                result = get(self._store, one.place, options={"if_match": one.mark, "range": {"offset": offset}})
            else:
                result = get(self._store, one.place, options={"if_match": one.mark})
            for chunk in result.stream(1 if one.size <= SMALL_BYTES else _CHUNK):
                yield bytes(chunk)


def google_client(bucket: str, options: Options) -> ObstoreClient:
    """Returns the client of a bucket of Cloud Storage. Raises: UnsupportedUri (credentials that cannot be used)."""
    from obstore.store import GCSStore

    endpoint = options.get("endpoint", "")

    def make(longest: timedelta) -> GCSStore:
        client_options = _client_options(endpoint, longest)
        if endpoint:
            return GCSStore(bucket, base_url=endpoint, client_options=client_options, retry_config=_retries())
        return GCSStore(bucket, client_options=client_options, retry_config=_retries())

    return ObstoreClient(make, f"gs {endpoint} {bucket}")


def azure_client(container: str, options: Options) -> ObstoreClient:
    """Returns the client of a container of Blob Storage. Raises: UnsupportedUri (credentials that cannot be used)."""
    from obstore.store import AzureStore

    endpoint, account = options.get("endpoint", ""), options.get("account", "")
    config: AzureConfig = {}
    if account:
        config["account_name"] = account
    if endpoint:
        config["endpoint"] = endpoint

    def make(longest: timedelta) -> AzureStore:
        client_options = _client_options(endpoint, longest)
        return AzureStore(container, config=config, client_options=client_options, retry_config=_retries())

    return ObstoreClient(make, f"az {endpoint} {account} {container}")


def _client_options(endpoint: str, longest: timedelta) -> "ClientConfig":
    return {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=5),
        "read_timeout": timedelta(seconds=30),
        "timeout": longest,
    }


def _retries() -> "RetryConfig":
    return {"max_retries": 2, "retry_timeout": timedelta(seconds=30)}


@contextmanager
def _made() -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, ValueError, OSError) as error:
        raise UnsupportedUri(not_made(error)) from error


@contextmanager
def _explained(shown: str) -> Iterator[None]:
    """Turns the client's errors into ours: their texts name addresses."""
    from obstore.exceptions import BaseError, NotFoundError, PreconditionError

    try:
        yield
    except (NotFoundError, FileNotFoundError):
        raise SourceNotFound(f"{shown} is not there") from None
    except PreconditionError:
        raise SourceChanged(f"{shown} was changed while it was copied") from None
    except (BaseError, OSError) as error:
        status = _STATUS.search(str(error))
        if status is not None and status["code"] == "404":  # a bucket, whose error has no class of its own
            raise SourceNotFound(f"{shown} is not there") from error
        why = f"the object store answers {status[0]!a}" if status is not None else type(error).__name__
        raise SourceUnreadable(f"{shown} cannot be read: {why}") from error
