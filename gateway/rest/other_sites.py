"""Requests that a page of another site has made a browser send: what changes something is not done for them.

Source: the Fetch standard, `Origin`; W3C Fetch Metadata, `Sec-Fetch-Site`. Other programs send neither.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

Header = Callable[[str], str | None]


def is_of_another_site(header: Header) -> bool:
    """Returns whether a browser says so. `header` gives the value of a lower-case name, None without one."""
    if header("sec-fetch-site") not in (None, "none", "same-origin"):
        return True
    origin = header("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != (header("host") or "").lower()
