"""What is said of an issuer whose keys cannot be fetched."""

import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer, SimpleHTTPRequestHandler

from gateway.access.key_fetch import fetch_beside
from gateway.runtime.host_checks import check_issuer
from gateway.runtime.host_finding import HostState
from tests.access.issuer import Issuer
from tests.rpc.serving import CERTIFICATES


def test_doctor_fetches_the_keys() -> None:
    issuer = Issuer()
    issuer.add("first")

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(issuer.document().encode() if self.path == "/keys" else b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        for path, state, words in (("/keys", HostState.OK, "1 keys"), ("/other", HostState.FAIL, "cannot be fetched")):
            serving = threading.Thread(target=server.handle_request)
            serving.start()
            finding = check_issuer(url + path)
            serving.join()
            assert (finding.verdict, words in finding.seen) == (state, True), finding
    assert check_issuer(f"{url}/keys").verdict is HostState.FAIL
    assert check_issuer("keys.json").verdict is HostState.OK


async def test_a_certificate_that_nobody_here_vouches_for_is_refused_with_the_way_out() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.handle_request)
        serving.start()
        keys, trouble = await fetch_beside(f"https://localhost:{server.server_port}/keys")
        serving.join()
    assert keys == ""
    assert "certificate verify failed" in trouble
    assert "SSL_CERT_FILE in the gateway's environment" in trouble
