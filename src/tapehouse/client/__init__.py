"""The Python client."""

from tapehouse.client.aio import AsyncClient, AsyncFrameStream
from tapehouse.client.client import Client, FrameStream
from tapehouse.client.frames import Page

__all__ = ["AsyncClient", "AsyncFrameStream", "Client", "FrameStream", "Page"]
