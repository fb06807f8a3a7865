"""The feature stores that a gateway was started with: `NAME=URL`, several with commas between them.

A URL without a name is that of the store `default`. URLs may hold commas themselves, and what lets one in.
"""

import re
from collections.abc import Mapping
from typing import Final

from gateway.errors import InvalidArgument
from gateway.routing.store.store_address import parse_address

DEFAULT_STORE: Final = "default"
# Between two stores: a comma before a name with a URL, or before a URL; not one between two hosts of one URL.
_BETWEEN: Final = re.compile(r" *, *(?=(?:[A-Za-z0-9._-]+=)?[a-z]+(?:\+[a-z]+)?://)")
_NAMED: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})=(?=[a-z+]+://)")


def split_stores(text: str) -> list[tuple[str, str]]:
    """Returns name and URL of each store in the text, in their order, unchecked."""
    stores = []
    for part in _BETWEEN.split(text) if text else []:
        named = _NAMED.match(part)
        stores.append((named[1], part[named.end() :]) if named else (DEFAULT_STORE, part))
    return stores


def store_urls(text: str) -> Mapping[str, str]:
    """Returns the stores' URLs by name.

    Raises: InvalidArgument, in words without the URL, which may hold a password.
    """
    urls: dict[str, str] = {}
    for name, url in split_stores(text):
        if name in urls:
            raise InvalidArgument(f"two feature stores are called {name!r}; name them as in NAME=URL")
        try:
            kind = parse_address(url).kind
        except InvalidArgument as error:
            raise InvalidArgument(f"feature store {name!r}: {error}") from None
        if kind == "cluster":
            raise InvalidArgument(
                f"feature store {name!r}: the rows of a cluster lie on all of its nodes, which is not read here; name "
                "one server, or one that Sentinel names"
            )
        urls[name] = url
    return urls
