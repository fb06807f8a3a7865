"""URLs without what lets one in, to be logged and printed."""

from urllib.parse import urlsplit, urlunsplit

from gateway.records.sinks.target import parse_targets


def masked_url(url: str) -> str:
    """Returns the URL with its password replaced."""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return "***"
    query = "&".join(
        f"{pair.split('=', 1)[0]}=***" if "password=" in pair.lower() else pair for pair in parts.query.split("&")
    )
    netloc = parts.netloc
    if password is not None:
        user, _, address = netloc.rpartition("@")
        netloc = f"{user.split(':', 1)[0]}:***@{address}"
    return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment))


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
