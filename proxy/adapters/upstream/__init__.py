"""The upstream leg: an HTTP/1.1 keep-alive client that knows whether a request left."""

from proxy.adapters.upstream.endpoint import Endpoint
from proxy.adapters.upstream.pool import HttpUpstream
from proxy.adapters.upstream.sweep import Sweep

__all__ = ["Endpoint", "HttpUpstream", "Sweep"]
