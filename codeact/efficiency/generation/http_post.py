"""One request to a server and the whole body of its reply, within a time limit."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import ipaddress
import queue
import threading
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

_LONGEST_REPLY = 64 * 2**20  # bytes: an answer is text of a few KB


class BadReplyError(Exception):
    """Status 200 with something that is not what was asked for."""


class StatusError(Exception):
    """Another status than 200.

    Attributes:
        status: Its number.
        wait: Seconds that the server asks to wait (``Retry-After``), 0 if it does not.
    """

    def __init__(self, reason: str, status: int, wait: float) -> None:
        super().__init__(reason)
        self.status, self.wait = status, wait


def post(url: str, data: bytes, api_key: str | None, timeout_seconds: float) -> bytes:
    """The body of a reply to JSON.

    A socket's own limit begins anew with every byte of a header, so another thread reads; where it
    goes on for too long it is left to itself, and ends with the connection or the process.

    Raises:
        StatusError: the status is not 200; redirections are not followed.
        BadReplyError: the reply is longer than 64 MiB.
        OSError: no connection, or no reply in time.
        HTTPException: the reply is no HTTP, or ends too soon.
    """
    outcome: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put(_exchange(url, data, api_key, timeout_seconds))
        except BaseException as error:  # of any kind, as somebody waits for the outcome
            outcome.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        result = outcome.get(timeout=timeout_seconds)
    except queue.Empty:
        raise TimeoutError(f"timed out after {timeout_seconds:g} s") from None
    if isinstance(result, BaseException):
        raise result
    return result


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """urllib would send the key to wherever a server points; without this a 3xx is an error."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _exchange(url: str, data: bytes, api_key: str | None, timeout_seconds: float) -> bytes:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    request = urllib.request.Request(url, data=data, headers=headers, method="POST")
    handlers: list[Any] = [_NoRedirects()]
    if _is_loopback(url):  # a proxy would ask its own machine
        handlers.append(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + timeout_seconds
    opener = urllib.request.build_opener(*handlers)
    try:
        with opener.open(request, timeout=timeout_seconds) as reply:
            return _body(reply, deadline)
    except urllib.error.HTTPError as error:
        wait = _retry_after(error.headers.get("Retry-After", ""))
        raise StatusError(_status_reason(error), error.code, wait) from None


def _body(reply: Any, deadline: float) -> bytes:
    parts, size = [], 0
    while part := reply.read1(65536):
        if time.monotonic() > deadline:  # nobody waits for it any more
            raise TimeoutError("timed out")
        parts.append(part)
        size += len(part)
        if size > _LONGEST_REPLY:
            raise BadReplyError(f"the reply is longer than {_LONGEST_REPLY} bytes")
    # read1, unlike read, does not say that a body ended too soon.
    if reply.length:
        raise http.client.IncompleteRead(b"".join(parts), reply.length)
    return b"".join(parts)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _status_reason(error: urllib.error.HTTPError) -> str:
    """The status and the beginning of what the server said about it."""
    try:
        said = error.read1(4096).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        said = ""
    finally:
        error.close()
    where = f"from {error.url} " if error.code in (404, 405) else ""  # a wrong path, mostly
    return f"HTTP status {error.code} {error.reason} {where}{said}"


def _retry_after(asked: str) -> float:
    """Seconds that a server asks to wait: a number, or a date; 0 if neither."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(asked))
    try:
        return max(0.0, email.utils.parsedate_to_datetime(asked).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
