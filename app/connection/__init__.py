"""From a socket to an endpoint: arrival, slow clients, overload, the short way, draining."""
