"""Requests that a page of another site has made a browser send: what changes something is not done for them.

Source: the Fetch standard, `Origin`; W3C Fetch Metadata, `Sec-Fetch-Site`. Other programs send neither.
"""

import socket
from collections.abc import Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

Header = Callable[[str], str | None]


def is_of_another_site(header: Header) -> bool:
    """Returns whether a browser says so. `header` gives the value of a lower-case name, None without one."""
    if header("sec-fetch-site") not in (None, "none", "same-origin"):
        return True
    origin = header("origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != (header("host") or "").lower()
    except ValueError:  # an address that is none
        return True


def is_own_name(host: str) -> bool:
    """Returns whether a `Host` is an address or a name that only this host answers to.

    Another name may be one that a site has pointed at this address (DNS rebinding), so that its scripts count as ours.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").lower()
        if name in ("localhost", socket.gethostname().lower()) or name.endswith(".localhost"):
            return True
        ip_address(name)
    except ValueError:
        return False
    return True
