"""What is said of an issuer whose keys cannot be fetched."""

import ssl
import threading
from http.server import HTTPServer, SimpleHTTPRequestHandler

from gateway.access.key_fetch import fetch_beside
from tests.rpc.serving import CERTIFICATES


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
