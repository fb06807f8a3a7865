"""The failures of the routing store, in words that hold neither its address nor its password."""

from collections.abc import Mapping
from errno import ECONNREFUSED
from typing import Final

# By the name of the exception's class or of one that it derives from: the client's own and the built-in ones.
_REASONS: Final[Mapping[str, str]] = {
    "TimeoutError": "did not answer within {timeout_s:g} s",
    "BusyLoadingError": "is loading its data",
    "AuthenticationError": "refused the credentials",
    "NoPermissionError": "refused permission to this user",
    "ReadOnlyError": "is a read-only replica",
    "OutOfMemoryError": "is out of memory",
    "MasterDownError": "is a replica without its master",
    "AskError": "is moving the gateway's keys to another node",
    "TryAgainError": "is moving the gateway's keys to another node",
    "ClusterDownError": "is a cluster that does not serve all keys",
    "ConnectionRefusedError": "is not reachable: connection refused",
    "gaierror": "is not reachable: unknown host name",
    "FileNotFoundError": "is not reachable: no socket at its path",
    "PermissionError": "is not reachable: this user may not open its socket",
    "SSLError": "is not reachable: the TLS handshake failed",
    "ConnectionError": "is not reachable",
    "OSError": "is not reachable",
}
_BY_WORD: Final[Mapping[str, str]] = {
    "NOAUTH": "asks for credentials",
    "MISCONF": "cannot write its data to disk",
    "MASTERDOWN": "is a replica without its master",
    "NOREPLICAS": "has too few replicas",
    "WRONGTYPE": "is damaged: the key holds another type",
    "UNBLOCKED": "changed its role",
    "BUSY": "is busy with a script",
}


def reason(error: BaseException, timeout_s: float) -> str:
    """The predicate of a sentence about the store."""
    causes: list[BaseException] = [error]
    if isinstance(error.__context__, Exception):
        causes.insert(0, error.__context__)  # a greeting that was refused arrives as a lost connection
    for cause in causes:
        if "CertificateError" in str(cause) or "CERTIFICATE_VERIFY_FAILED" in str(cause):
            return "shows a TLS certificate that does not verify"
        if "Authentication required" in str(cause):  # the client has cut NOAUTH off
            return _BY_WORD["NOAUTH"]
        if str(cause).startswith("max number of clients"):
            return "has as many clients as it may have (maxclients)"
        if isinstance(cause, OSError) and f"[Errno {ECONNREFUSED}]" in str(cause):  # of every address of a name
            return _REASONS["ConnectionRefusedError"]
        if str(cause).startswith("Protocol error"):
            return "is none: what answers there speaks no RESP"
        if "Connection closed by server" in str(cause):
            return "closed the connection before it answered; if it expects TLS its URL begins with rediss://"
        for kind in type(cause).__mro__:
            if kind.__name__ in _REASONS:
                return _REASONS[kind.__name__].format(timeout_s=timeout_s)
    if "Function not found" in str(error):
        return "lacks the gateway's functions, which an administrator loads (docs/redis.md)"
    if "WRONGTYPE" in str(error):  # of a command in a transaction, which the client's text names first
        return _BY_WORD["WRONGTYPE"]
    word = str(error).split(" ", 1)[0]
    return _BY_WORD.get(word, f"answered with an error: {str(error)[:120]}")
