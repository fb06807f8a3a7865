"""A server's certificate as grpcio takes it: at each handshake it asks for one, and is told only of a new one.

grpcio forgets what it made of the last one as soon as it is given another, even while another of its threads makes a
handshake of it, which ends the process (https://github.com/grpc/grpc/issues/36693). Were it given one each time, as its
interface invites, whoever connects a few hundred times at once could end a worker.
"""

import math
import time
from collections.abc import Callable
from typing import Final

import grpc

from gateway.rpc.server_certificate import Material, ServerCertificate

# Making a handshake takes some 0.1 ms; the rest is for a thread that waits for a CPU.
SETTLE_S: Final = 0.05


class ShownCertificate:
    """Gives grpcio the newest certificate, once, so it is for one port: a second one would hear of no renewal.

    Order: grpcio asks from threads of its own, one at a time. Those that were told of nothing new go on with the last
           one, so what is new is held back until `SETTLE_S` after the last one asked; whoever comes meanwhile waits,
           and so do the calls that the waiting thread would have served: once in a renewal, in a worker to which
           somebody else connected within that time, for so long at most.

    That is a bet and no proof: a thread that has no CPU for longer, or that the machine stopped together with the clock
    going on, may still use what is forgotten. A certificate that grpcio does not take is not given again, for it would
    not be taken then either: the last one stays until there is another.
    """

    def __init__(
        self,
        certificate: ServerCertificate,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._certificate = certificate
        self._clock_s = clock_s
        self._wait = wait
        self._answered_s = -math.inf
        self._given = certificate.material
        self.first = _configuration(self._given)

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns what grpcio does not have yet, None if it has the newest."""
        configuration = self._news()
        self._answered_s = self._clock_s()
        return configuration

    def _news(self) -> grpc.ServerCertificateConfiguration | None:
        material = self._certificate.material
        if material is self._given:
            return None
        configuration = _configuration(material)
        if (left_s := self._answered_s + SETTLE_S - self._clock_s()) > 0:
            self._wait(left_s)
        self._given = material
        return configuration


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.client_ca)
