"""The table of rivals: what each is, where it comes from, how it is started, and what it is sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

GRPC: Final = "gRPC, Open Inference Protocol"
REST_JSON: Final = "HTTP/1.1, the same protocol in JSON"


@dataclass(frozen=True, slots=True)
class Rival:
    """A server of models that is installed in an environment of its own.

    `start` is the module that its interpreter runs; `processes` says what runs the model when so many `{workers}` are
    wanted; `rest` is the form of what it is sent over REST, empty for gRPC.
    """

    name: str
    title: str
    distribution: str  # whose version is shown
    requirements: tuple[str, ...]
    start: str
    processes: str
    rest: str = ""

    @property
    def protocol(self) -> str:
        return REST_JSON if self.rest else GRPC


# Of later ones get_event_loop raises where there is none, which ends the workers of this MLServer.
_LOOP: Final = "uvloop==0.21.0"
_PACKAGE: Final = "loadtests.bench.rivals"

RIVALS: Final[Mapping[str, Rival]] = {
    rival.name: rival
    for rival in (
        Rival(
            "triton", "Triton 2.51, Python backend", "nvidia-pytriton", ("nvidia-pytriton==0.7.0",),
            f"{_PACKAGE}.triton_start", "a server in C++, {workers} processes that run the model",
        ),
        Rival(
            "kserve", "KServe", "kserve", ("kserve==0.21.0",),
            f"{_PACKAGE}.kserve_start", "one: its gRPC server has no setting for more",
        ),
        Rival(
            "mlserver", "MLServer", "mlserver", ("mlserver==1.7.1", _LOOP),
            f"{_PACKAGE}.mlserver_start", "a server, {workers} parallel workers that run the model",
        ),
        Rival(
            "ray", "Ray Serve", "ray", ("ray[serve]==2.60.0",),
            f"{_PACKAGE}.ray_start", "a proxy, {workers} replicas that run the model",
        ),
        Rival(
            "bentoml", "BentoML", "bentoml", ("bentoml==1.4.40",),
            f"{_PACKAGE}.bentoml_start", "{workers} workers", rest="json",
        ),
    )
}  # fmt: skip
