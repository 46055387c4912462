"""The bytes of a request: a head that is made once for each path, and the body behind it.

Pure; nothing is sent here.
"""

from __future__ import annotations

from aiohttp import ClientRequest
from yarl import URL

from deepcall_async.events import Trace
from deepcall_async.transport.base import CONTENT_TYPE, proxy_authorization

__all__ = ["RequestHead"]


class RequestHead:
    """Makes the bytes of requests, whose heads differ only in path and length.

    Args:
        url: the service's base URL.
        proxy: an HTTP proxy that they go through, if any.
        request: what tells aiohttp's connector where to connect; its ``Host`` is sent.
        headers: to add to every request.
    """

    def __init__(
        self, url: URL, proxy: URL | None, request: ClientRequest, headers: dict[str, str]
    ) -> None:
        self._target = url.raw_path.rstrip("/")
        fields = {"Host": request.headers["Host"], **headers, "Content-Type": CONTENT_TYPE}
        if proxy is not None and url.scheme == "http":
            # To a proxy that is no tunnel the target is the whole URL (RFC 9112, 3.2.2).
            self._target = str(url.origin()) + self._target
            fields |= proxy_authorization(proxy)
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._rest = f" HTTP/1.1\r\n{lines}Content-Length: ".encode("latin-1")
        self._heads: dict[str, bytes] = {}
        self._names = {name.lower() for name in fields}

    def request(self, path: str, body: bytes, trace: Trace | None) -> bytes:
        """The whole request; what was sent is noted in its trace."""
        head = self._heads.get(path)
        if head is None:
            head = b"POST " + (self._target + path).encode("ascii") + self._rest
            self._heads[path] = head
        length = len(body)
        if trace is None:
            return b"%b%d\r\n\r\n%b" % (head, length, body)
        trace.sent = length
        return b"%b%d%b\r\n\r\n%b" % (head, length, self._more(trace.headers), body)

    def _more(self, headers: dict[str, str] | None) -> bytes:
        if headers is None:
            return b""
        return "".join(
            f"\r\n{name}: {value}"
            for name, value in headers.items()
            if name.lower() not in self._names
        ).encode("latin-1")
