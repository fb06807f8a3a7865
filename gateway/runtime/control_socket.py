"""The unix socket of the control service: bound once by the supervisor, and inherited by every worker.

So whichever worker is free answers, and replacing one of them turns nobody away.
"""

import os
import socket
import stat
from pathlib import Path
from typing import Final, Self

from gateway.errors import FailedPrecondition

_BACKLOG: Final = 128


class ControlSocket:
    """Listens at a path that only this user can connect to, and takes it away at the end."""

    def __init__(self, path: Path) -> None:
        """Raises: FailedPrecondition naming the path, and what is wrong with it."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._remove_dead()
            self._socket.bind(os.fspath(path))
            path.chmod(0o600)
            self._socket.listen(_BACKLOG)
            self._inode = path.stat().st_ino
        except OSError as error:
            self._socket.close()
            # A path that is too long has no errno.
            why = error.strerror or str(error)
            raise FailedPrecondition(f"cannot listen at control-socket {str(path)!r}: {why}") from None
        except FailedPrecondition:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
        try:
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        except OSError:
            pass  # somebody has taken it away already

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _remove_dead(self) -> None:
        """Takes away the socket of a gateway that was killed. Raises: FailedPrecondition for anything else there."""
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise FailedPrecondition(f"control-socket {str(self._path)!r} is there and is no socket: give another path")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.setblocking(False)  # who listens and accepts nothing (SIGSTOP) would be waited for without end
            try:
                asking.connect(os.fspath(self._path))
            except ConnectionRefusedError:
                self._path.unlink()
                return
            except BlockingIOError:
                pass  # as many wait there as may
        raise FailedPrecondition(
            f"another process listens at control-socket {str(self._path)!r}: stop it, or give another path"
        )
