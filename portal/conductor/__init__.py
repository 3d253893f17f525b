"""From a run to its hosts and back: transports, channels, following. Knows no Django."""
