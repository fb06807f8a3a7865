"""The client package: `Client` and `AsyncClient` call a gateway with numpy arrays, and import nothing of the server."""

from gateway.client.answer import Answer, JoinedAnswers
from gateway.client.async_client import AsyncClient
from gateway.client.blocking_client import Client
from gateway.client.call_error import CallError
from gateway.client.channel_target import ChannelTls
from gateway.client.explanation_steps import ExplainedStep, RouteExplanation

__all__ = [
    "Answer",
    "AsyncClient",
    "CallError",
    "ChannelTls",
    "Client",
    "ExplainedStep",
    "JoinedAnswers",
    "RouteExplanation",
]
