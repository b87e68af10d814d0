"""The composition root: what a server is made of, in which order it starts, and how it stops."""

from __future__ import annotations

from tapehouse.server.background import Background, start_in_thread
from tapehouse.server.serving import keys_of, serve, socket_of

__all__ = ["Background", "keys_of", "serve", "socket_of", "start_in_thread"]
