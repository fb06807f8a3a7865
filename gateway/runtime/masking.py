"""Values of options without what lets one in, to be logged and printed."""

import re
from urllib.parse import urlsplit

from gateway.records.sinks.target import parse_targets

_SECRET = re.compile(r"pass|secret|token|credential|sasl|auth", re.IGNORECASE)


def masked_url(text: str) -> str:
    """Returns the text with what lets one in replaced, where it is a URL or looks like a part of one.

    1. In front of the last `@` nothing but a scheme and a user's name is shown.
    2. Of a parameter whose name says that it is a secret the value is not shown.
    """
    access, at, rest = text.rpartition("@")
    if at:
        scheme, slashes, login = access.rpartition("://")
        user, colon, _ = login.partition(":")
        shown = f"{scheme}{slashes}{user}{':***' if colon else ''}" if slashes else "***"
    else:
        shown = ""
    head, mark, query = rest.partition("?")
    pairs = [
        f"{name}=***" if _SECRET.search(name) else pair for pair in query.split("&") for name in [pair.split("=")[0]]
    ]
    return f"{shown}{at}{head}{mark}{'&'.join(pairs)}"


def masked_webhook(url: str) -> str:
    """Returns the URL's server; paths of webhooks often are what lets one in."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "***"
    if not parts.netloc or "@" in parts.netloc:
        return "***" if url else ""
    return f"{parts.scheme}://{parts.netloc}/***"


def masked_sinks(text: str) -> str:
    """Returns kind, place and name of each sink."""
    try:
        return ",".join(f"{target.kind}:{target.place} ({target.name})" for target in parse_targets(text))
    except ValueError:
        return "***" if text else ""
