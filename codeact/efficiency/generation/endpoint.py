"""Answers from an OpenAI-compatible server (vLLM, Ollama, llama.cpp, hosted ones), over urllib."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from codeact.efficiency.generation.http_post import BadReplyError, StatusError, post
from codeact.errors import InputError

# Whose meaning is "later": a time-out, a conflict, too early, too many, and all of 5xx but 501.
_RETRIED = {408, 409, 425, 429, *range(500, 600)} - {501}
# The server or the key is not what the recipe says: no other prompt will fare better.
_FATAL = {401, 402, 403, 404, 405, 501}
_LONGEST_WAIT = 60.0  # seconds, whatever Retry-After asks for
_LONGEST_REASON = 300


class EndpointError(RuntimeError):
    """A prompt without an answer; ``fatal`` if no other prompt would get one either."""

    def __init__(self, reason: str, *, fatal: bool = False) -> None:
        super().__init__(reason)
        self.fatal = fatal


@dataclass(frozen=True)
class Endpoint:
    """A server's chat completions.

    Args:
        url: What ``/chat/completions`` is put behind, such as ``http://127.0.0.1:8000/v1``.
        model: The model's name there.
        api_key: Sent as a bearer token; never shown, logged or written, and not sent on by a
            redirection, which is refused.
        timeout_seconds: Of one attempt, as a whole.
        attempts: How often a prompt is sent before it has failed.
        backoff_seconds: Wait after the first failure, doubled after each; at least what the server
            asks for in ``Retry-After``, at most 60 s.

    Raises:
        InputError: the url is not http(s) with a host, goes on behind the path, or carries a user
            name or a password; or the key holds what no key can.
    """

    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    timeout_seconds: float = 300.0
    attempts: int = 6
    backoff_seconds: float = 1.0

    def __post_init__(self) -> None:
        check_url(self.url)
        if self.api_key is not None and not fits_header(self.api_key):
            raise InputError("api_key must be printable ASCII without spaces")


class Reply(NamedTuple):
    """One answer.

    Attributes:
        text: The message's content, ``""`` if the server sent none.
        finish: Why it ended in the server's words: ``"stop"``, ``"length"``, ...
        prompt_tokens: Tokens of the prompt as the server counted them, None if it did not.
        response_tokens: Tokens of the answer, likewise.
        attempts: How often the prompt was sent.
        seconds: Wall time of the last attempt.
    """

    text: str
    finish: str
    prompt_tokens: int | None
    response_tokens: int | None
    attempts: int
    seconds: float


def check_url(url: str) -> None:
    """Refuse what is no address of a server, or has a secret in it.

    Raises:
        InputError: see :class:`Endpoint`.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises on a port that is no number
        host = parts.hostname or ""
        host.encode("idna")
        parts.path.encode("ascii")
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or not url.isprintable() or " " in url:
        raise InputError(f"endpoint must be an http or https address, got {url!r}")
    if parts.username is not None or parts.password is not None:
        raise InputError(f"endpoint must hold no user name or password, {host} comes with one")
    end = "/chat/completions"
    if parts.query or parts.fragment or parts.path.rstrip("/").endswith(end):
        raise InputError(f"endpoint must end before {end}, such as in /v1, got {url!r}")


def fits_header(key: str) -> bool:
    """Whether a key can be sent; urllib would show the others in its error."""
    return key.isascii() and key.isprintable() and " " not in key


def chat(
    endpoint: Endpoint,
    messages: Sequence[Mapping[str, str]],
    *,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    seed: int | None = None,
) -> Reply:
    """The answer to one conversation, tried again while that may help.

    Tried again are time-outs, broken connections, replies that are cut off or no JSON, and the
    statuses 408, 409, 425, 429 and 5xx but 501. Other statuses are final.

    Args:
        endpoint: Where to.
        messages: ``{"role": ..., "content": ...}`` each.
        temperature: As the server takes it.
        top_p: Likewise.
        max_new_tokens: Sent as ``max_tokens``.
        seed: Sent as ``seed``, with its lowest 31 bits; servers are free to ignore it.

    Raises:
        EndpointError: no answer after ``endpoint.attempts``, or a status that is final.
    """
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": list(messages),
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_new_tokens,
    }
    if seed is not None:
        body["seed"] = seed & 0x7FFFFFFF  # some servers keep it in 32 bits with a sign
    data = json.dumps(body).encode()
    url = endpoint.url.rstrip("/") + "/chat/completions"
    reason = ""
    for attempt in range(1, endpoint.attempts + 1):
        begin = time.monotonic()
        wait = 0.0
        try:
            text, finish, usage = _read_reply(
                post(url, data, endpoint.api_key, endpoint.timeout_seconds)
            )
            seconds = time.monotonic() - begin
            return Reply(text, finish, *usage, attempts=attempt, seconds=seconds)
        except StatusError as error:
            reason = _shown(endpoint, str(error))
            if error.status not in _RETRIED:
                raise EndpointError(reason, fatal=error.status in _FATAL) from None
            wait = error.wait
        except (OSError, http.client.HTTPException, BadReplyError) as error:
            reason = _shown(endpoint, str(error) or type(error).__name__)
        if attempt < endpoint.attempts:
            # No float holds 2 ** 1024, and the limit is reached long before.
            backoff = endpoint.backoff_seconds * 2.0 ** min(attempt - 1, 100)
            # Requests that failed together should not come back together.
            time.sleep(min(_LONGEST_WAIT, max(wait, backoff * random.uniform(0.5, 1.0))))
    raise EndpointError(f"no answer in {endpoint.attempts} attempts, the last: {reason}")


def _read_reply(body: bytes) -> tuple[str, str, tuple[int | None, int | None]]:
    """Text, reason of the end, and (prompt, response) tokens of a chat completion."""
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        raise BadReplyError(f"the reply is no JSON: {body[:80]!r}") from None
    try:
        choice = reply["choices"][0]
        text, finish = choice["message"].get("content"), choice.get("finish_reason")
    except (AttributeError, IndexError, KeyError, TypeError):
        raise BadReplyError(f"the reply is no chat completion: {body[:80]!r}") from None
    if not isinstance(text, str | None):
        raise BadReplyError(f"the reply's content must be text, got {type(text).__name__}")
    usage = reply.get("usage")
    counted = usage if isinstance(usage, dict) else {}
    prompt, response = (counted.get(f"{name}_tokens") for name in ("prompt", "completion"))
    # Half a surrogate pair is JSON, but no text that could be written to a file.
    text = (text or "").encode("utf-8", "replace").decode()
    return text, str(finish or "unknown"), (_count(prompt), _count(response))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _shown(endpoint: Endpoint, reason: str) -> str:
    """One printable line without the key, which servers like to repeat."""
    if endpoint.api_key:
        reason = reason.replace(endpoint.api_key, "[key]")
    line = " ".join("".join(c if c.isprintable() else " " for c in reason).split())
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + "…"
