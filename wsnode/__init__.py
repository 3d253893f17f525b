"""wslab node: serves WebSocket connections, generates load, measures both."""

__version__ = "0.1.0"
