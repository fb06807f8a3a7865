"""Servers of an issuer's keys: a sound one, and one that says whatever a test has it say."""

import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.access.issuer import Issuer


class Published:
    """A web server with an issuer's document; `down` makes it fail, `asked` counts."""

    def __init__(self, issuer: Issuer) -> None:
        self.asked = 0
        self.down = False
        self.body = b""
        published = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                published.asked += 1
                if published.down or self.path == "/moved":
                    self.send_response(302 if self.path == "/moved" else 503)
                    self.send_header("Location", "/keys")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = published.body or issuer.document().encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"


class Says:
    """A server that says `answer` to whoever comes, and goes on by single bytes until `goes_on` is set."""

    def __init__(self) -> None:
        self.answer = b""
        self.goes_on = threading.Event()
        self.goes_on.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/keys"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self._connections: list[threading.Thread] = []

    def end(self) -> None:
        self.goes_on.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in (self._thread, *self._connections):
            thread.join()
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                said = self._listener.accept()[0], self.answer, self.goes_on
                self._connections.append(threading.Thread(target=self._say, args=said))
                self._connections[-1].start()

    @staticmethod
    def _say(connection: socket.socket, answer: bytes, goes_on: threading.Event) -> None:
        with connection, suppress(OSError):
            connection.recv(4096)
            connection.sendall(answer)
            while not goes_on.wait(0.05):
                connection.sendall(b"x")
