"""A small chat server on the loopback interface that misbehaves as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(text: object, **more: Any) -> dict[str, Any]:
    """A reply as such servers send it."""
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 3}, **more}


class ChatServer:
    """Answers ``echo: PROMPT``, or does what ``script`` says: one entry a request, in order.

    An entry is a status, or a function of the handler that sends whatever it likes.
    ``requests`` holds the bodies that came, ``headers`` what came with them, and ``most_at_once``
    how many were under way together.
    """

    def __init__(self, *script: int | Callable[[BaseHTTPRequestHandler], None]) -> None:
        self.script = list(script)
        self.forever: int | None = None
        self.seconds = 0.0
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/chat/completions"
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with chat._lock:
                    chat.requests.append(body)
                    chat.headers.append(dict(self.headers))
                    chat._at_once += 1
                    chat.most_at_once = max(chat.most_at_once, chat._at_once)
                    action = chat.script.pop(0) if chat.script else chat.forever
                try:
                    time.sleep(chat.seconds)
                    if callable(action):
                        action(self)
                    elif action is None:
                        prompt = body["messages"][-1]["content"]
                        send(self, 200, json.dumps(completion(f"echo: {prompt}")).encode())
                    else:
                        send(self, action, b'{"error": "as told"}')
                finally:
                    with chat._lock:
                        chat._at_once -= 1

            def log_message(self, *words: object) -> None:
                """Say nothing."""

        return Handler


def send(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    *,
    length: int | None = None,
    **headers: str,
) -> None:
    """A reply whose Content-Length may be a lie."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)
