"""Where callers arrive: HTTP/1.1 on aiohttp's low-level server, requests in, replies out."""

from proxy.adapters.listener.acceptor import BadRequest, Handler, Options
from proxy.adapters.listener.handshake import OUTCOMES
from proxy.adapters.listener.server import Listener

__all__ = ["OUTCOMES", "BadRequest", "Handler", "Listener", "Options"]
