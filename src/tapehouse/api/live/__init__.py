"""Live records over HTTP and WebSocket: ingest, streams, and the state of both."""
