"""A server that sends the bytes it is given, at its leisure."""

import socket
import threading
from collections.abc import Iterable

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


class Raw:
    """A server that sends these bytes in answer to whatever it is asked, piece by piece, and closes the connection."""

    def __init__(self, *pieces: bytes, stays: threading.Event | None = None) -> None:
        """`stays`: the connection is closed when that is set."""
        self.pieces: Iterable[bytes] = pieces
        self._stays = stays
        self.later: tuple[bytes, ...] = ()  # from the second answer on
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.base = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                for piece in self.pieces:
                    connection.sendall(piece)
                if self._stays is not None:
                    self._stays.wait(60)
            self.pieces = self.later or self.pieces

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
