"""A server's certificate as grpcio takes it: at each handshake it asks for one, and is told only of a new one.

grpcio forgets what it made of the last one as soon as it is given another, even while another of its threads makes a
handshake of it, which ends the process (https://github.com/grpc/grpc/issues/36693). Were it given one each time, as its
interface invites, whoever connects a few hundred times at once could end a worker.
"""

import time
from typing import Final

import grpc

from gateway.rpc.server_certificate import Material, ServerCertificate

# Making a handshake takes some 0.1 ms; the rest is for a thread that waits for a CPU.
_SETTLE_S: Final = 0.25


class ShownCertificate:
    """Gives grpcio the newest certificate, once.

    Order: grpcio asks from threads of its own, one at a time. Those that were told of nothing new go on with the last
           one, so what is new is held back until they are through; whoever comes meanwhile waits for the answer.
    """

    def __init__(self, certificate: ServerCertificate) -> None:
        self._certificate = certificate
        self._given = certificate.material
        self.first = _configuration(self._given)

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns what grpcio does not have yet, None if it has the newest."""
        material = self._certificate.material
        if material is self._given:
            return None
        configuration = _configuration(material)
        time.sleep(_SETTLE_S)
        self._given = material
        return configuration


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.client_ca)
