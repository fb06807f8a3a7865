"""Which addresses are this machine's own, so that no secret leaves it on the way there."""

from ipaddress import ip_address


def is_this_host(server: str) -> bool:
    """Returns whether what is sent to host:port stays on this machine."""
    if server.startswith(("unix:", "unix-abstract:")):
        return True
    host = server.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
