"""The endpoint client against a real server that limits, breaks, hangs and cuts off."""

from __future__ import annotations

import contextlib
import email.utils
import json
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # chat_server
from chat_server import ChatServer, completion, send

from codeact.efficiency.generation.endpoint import Endpoint, EndpointError, Reply, chat
from codeact.errors import InputError

KEY = "sk-very-secret"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hé"}]


def ask(server: ChatServer, **options: Any) -> Reply:
    options = {"timeout_seconds": 5.0, "attempts": 3, "backoff_seconds": 0.01, **options}
    endpoint = Endpoint(server.url, "tiny", api_key=KEY, **options)
    return chat(endpoint, MESSAGES, temperature=0.7, top_p=0.9, max_new_tokens=50, seed=2**40 + 9)


def test_what_is_sent_and_what_comes_back() -> None:
    with ChatServer() as server:
        reply = ask(server)
    assert reply[:5] == ("echo: hé", "stop", 5, 3, 1)
    assert 0 < reply.seconds < 5
    assert server.requests == [
        {
            "model": "tiny", "messages": MESSAGES, "temperature": 0.7, "top_p": 0.9,
            "max_tokens": 50, "seed": 9,
        }
    ]  # fmt: skip
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def close_at_once(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    send(handler, 200, json.dumps(completion("half")).encode(), length=10_000)


def half_json(handler: BaseHTTPRequestHandler) -> None:
    send(handler, 200, json.dumps(completion("half")).encode()[:-9])


def no_choices(handler: BaseHTTPRequestHandler) -> None:
    send(handler, 200, b'{"error": {"message": "overloaded"}}')


def hang(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.0)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then: no single read ever takes long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    for _ in range(20):
        handler.wfile.write(b" ")
        time.sleep(0.1)


@pytest.mark.parametrize(
    "trouble", [429, 500, 502, 503, 408, close_at_once, cut_off, half_json, no_choices, hang, drip]
)
def test_trouble_that_passes_is_tried_again(trouble: Any) -> None:
    with ChatServer(trouble, 500) as server:
        reply = ask(server, timeout_seconds=0.4)
    assert (reply.text, reply.attempts, len(server.requests)) == ("echo: hé", 3, 3)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (429, r"HTTP status 429 Too Many Requests \{\"error\": \"as told\"\}$"),
        (cut_off, r"IncompleteRead\("),
        (half_json, r"the reply is no JSON: b'\{\"choices"),
        (no_choices, "the reply is no chat completion: .*overloaded"),
        (drip, "timed out after 0.2 s"),
    ],
)
def test_trouble_that_stays_is_named(trouble: Any, reason: str) -> None:
    with (
        ChatServer(trouble, trouble) as server,
        pytest.raises(EndpointError, match=f"^no answer in 2 attempts, the last: {reason}") as why,
    ):
        ask(server, attempts=2, timeout_seconds=0.2)
    assert len(server.requests) == 2
    assert not why.value.fatal


@pytest.mark.parametrize(
    ("status", "fatal"), [(400, False), (422, False), (401, True), (404, True)]
)
def test_a_final_status_is_not_tried_again(status: int, fatal: bool) -> None:
    with ChatServer(status) as server, pytest.raises(EndpointError, match=str(status)) as why:
        ask(server)
    assert (len(server.requests), why.value.fatal) == (1, fatal)


def test_a_dead_server_is_no_answer() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        endpoint = Endpoint(
            f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "m", attempts=2, backoff_seconds=0.01
        )
        with pytest.raises(EndpointError, match=r"no answer in 2 attempts, .*refused"):
            chat(endpoint, MESSAGES, temperature=0, top_p=1, max_new_tokens=1)


@pytest.mark.parametrize("as_date", [False, True])
def test_the_wait_that_a_server_asks_for_is_kept(as_date: bool) -> None:
    def later(handler: BaseHTTPRequestHandler) -> None:
        # A date has whole seconds, so that up to one of the two is gone already.
        asked = email.utils.formatdate(time.time() + 2, usegmt=True) if as_date else "0.5"
        send(handler, 429, b"", Retry_After=asked)

    begin = time.monotonic()
    with ChatServer(later) as server:
        assert ask(server).attempts == 2
    assert 0.5 <= time.monotonic() - begin < 4


def test_waits_grow_with_every_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("codeact.efficiency.generation.endpoint.time.sleep", waits.append)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = Endpoint(
            f"http://127.0.0.1:{taken.getsockname()[1]}", "m", attempts=9, backoff_seconds=1.0
        )
        with pytest.raises(EndpointError):
            chat(endpoint, MESSAGES, temperature=0, top_p=1, max_new_tokens=1)
    assert len(waits) == 8  # none after the last
    for number, wait in enumerate(waits):
        assert min(60, 0.5 * 2**number) <= wait <= min(60, 2**number)


def test_a_key_is_shown_nowhere() -> None:
    def repeat(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 401, f"Incorrect API key: {KEY}\n\x1b[31m".encode())

    with ChatServer(repeat) as server, pytest.raises(EndpointError) as why:
        ask(server)
    assert str(why.value).endswith("Incorrect API key: [key] [31m")
    assert KEY not in repr(Endpoint(server.url, "m", api_key=KEY))


def test_a_key_does_not_follow_a_redirection() -> None:
    with ChatServer() as other:

        def point_away(handler: BaseHTTPRequestHandler) -> None:
            send(handler, 302, b"", Location=other.url + "/chat/completions")

        with ChatServer(point_away) as server, pytest.raises(EndpointError, match="status 302"):
            ask(server)
    assert other.requests == []


def test_a_server_on_this_machine_needs_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with ChatServer() as server:
        assert ask(server, attempts=1).text == "echo: hé"


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        (completion(None), ("", "stop", 5, 3)),
        (completion("a\ud800b"), ("a?b", "stop", 5, 3)),
        (completion("a", usage=None), ("a", "stop", None, None)),
        (completion("a", usage={"prompt_tokens": "7"}), ("a", "stop", None, None)),
        ({"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]},
         ("a", "length", None, None)),
        ({"choices": [{"message": {"content": "a"}}]}, ("a", "unknown", None, None)),
    ],
)  # fmt: skip
def test_replies_that_leave_things_out(reply: dict[str, Any], wanted: tuple[Any, ...]) -> None:
    with ChatServer(lambda handler: send(handler, 200, json.dumps(reply).encode())) as server:
        assert ask(server, attempts=1)[:4] == wanted


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no chat completion"),
        (b'{"choices": []}', "no chat completion"),
        (b'{"choices": [{"message": "hello"}]}', "no chat completion"),
        (json.dumps(completion(["a"])).encode(), "content must be text, got list"),
    ],
)
def test_replies_that_are_none(body: bytes, reason: str) -> None:
    with (
        ChatServer(lambda handler: send(handler, 200, body)) as server,
        pytest.raises(EndpointError, match=reason),
    ):
        ask(server, attempts=1)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "127.0.0.1:8000",
        "http://",
        "http://[::1",
        "http://h:x/v1",
        "",
        "http://h/v 1",
        "http://h\t/v1",
        "http://h/\u00e9",
        "http://" + "a" * 70 + ".x/v1",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(InputError, match="endpoint must be an http or https address, got"):
        Endpoint(url, "m")


@pytest.mark.parametrize("end", ["/v1/chat/completions", "/v1/chat/completions/", "/v1?x=1", "/#x"])
def test_an_address_that_goes_on_too_far(end: str) -> None:
    with pytest.raises(InputError, match="endpoint must end before /chat/completions"):
        Endpoint(f"http://h{end}", "m")


@pytest.mark.parametrize("key", ["sk-secret x", "sk-secret\nx", "sk-secret\u2019"])
def test_a_key_that_cannot_be_sent_is_not_shown(key: str) -> None:
    with pytest.raises(InputError, match="api_key must be printable ASCII") as why:
        Endpoint("http://h/v1", "m", api_key=key)
    assert "secret" not in str(why.value)


def test_a_header_that_never_ends_is_left_in_time() -> None:
    def drip_header(handler: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):  # the client is gone by then
            for _ in range(20):
                handler.wfile.write(b"H")
                time.sleep(0.1)

    begin = time.monotonic()
    with (
        ChatServer(drip_header) as server,
        pytest.raises(EndpointError, match=r"the last: timed out after 0.3 s"),
    ):
        ask(server, attempts=1, timeout_seconds=0.3)
    assert time.monotonic() - begin < 1.5


def test_a_wrong_path_is_named() -> None:
    with (
        ChatServer(404) as server,
        pytest.raises(EndpointError, match=f"404 Not Found from {server.url}/chat/completions"),
    ):
        ask(server)


def test_attempts_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.0 ** 1024 is no float any more."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr("codeact.efficiency.generation.endpoint.post", refuse_connection)
    endpoint = Endpoint("http://h/v1", "m", attempts=1100)
    with pytest.raises(EndpointError, match="no answer in 1100 attempts, the last: refused"):
        chat(endpoint, MESSAGES, temperature=0, top_p=1, max_new_tokens=1)
    assert len(waits) == 1099
    assert max(waits) == 60.0


def refuse_connection(*_: object) -> bytes:
    raise OSError("refused")


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(InputError, match="must hold no user name or password") as why:
        Endpoint("https://me:hunter2@example.org/v1", "m")
    assert "hunter2" not in str(why.value)
