"""Answers of a server, several requests at a time."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from queue import SimpleQueue

from codeact.efficiency.generation.endpoint import Endpoint, EndpointError, chat
from codeact.efficiency.generation.questions import Answer, Question
from codeact.efficiency.generation.recipe import ModelEntry

_LOG = logging.getLogger(__name__)

# Failures without an answer between them after which a server counts as gone; more with more
# requests under way, of which one bad moment may take all.
_MOST_FAILURES = 8


def answers_of_endpoint(
    entry: ModelEntry, questions: Sequence[Question]
) -> Iterator[tuple[Question, Answer | str]]:
    """Answers in the order in which they come, or why there is none.

    After a status that no other prompt would escape (a wrong key or address), and after many
    failures in a row, nothing more is sent: what is left fails for the same reason.
    """
    endpoint = Endpoint(
        entry.endpoint or "",
        entry.model,
        api_key=entry.api_key(),
        timeout_seconds=entry.timeout_seconds,
        attempts=entry.attempts,
        backoff_seconds=entry.backoff_seconds,
    )
    waiting = deque(questions)
    outcomes: SimpleQueue[tuple[Question, Answer | EndpointError | BaseException]] = SimpleQueue()
    stop = threading.Event()
    _start_workers(min(entry.concurrency, len(questions)), endpoint, waiting, outcomes, stop)
    most_failures = max(_MOST_FAILURES, 2 * entry.concurrency)
    in_a_row, num_out, stopped = 0, len(questions), ""
    try:
        while num_out:
            question, outcome = outcomes.get()
            num_out -= 1
            if isinstance(outcome, Answer):
                in_a_row = 0
                yield question, outcome
                continue
            if not isinstance(outcome, EndpointError):
                raise outcome
            in_a_row += 1
            yield question, str(outcome)
            if not stopped and (outcome.fatal or in_a_row >= most_failures):
                stop.set()
                stopped = f"not sent, after: {outcome}"
                _LOG.warning("%s: %d answers %s", entry.name, len(waiting), stopped)
            while stopped and (left := _next(waiting)) is not None:
                yield left, stopped
                num_out -= 1
    finally:
        stop.set()  # whoever stops reading wants no more requests either


def _start_workers(
    num_workers: int,
    endpoint: Endpoint,
    waiting: deque[Question],
    outcomes: SimpleQueue[tuple[Question, Answer | EndpointError | BaseException]],
    stop: threading.Event,
) -> None:
    """Threads that end with the process: one that waits for a server must not hold up Ctrl-C."""

    def work() -> None:
        while not stop.is_set() and (question := _next(waiting)) is not None:
            outcome: Answer | EndpointError | BaseException
            try:
                outcome = _ask(endpoint, question)
            except BaseException as error:  # of any kind, as somebody waits for the outcome
                outcome = error
                if getattr(error, "fatal", True):
                    stop.set()  # before another worker, or this one, takes the next
            outcomes.put((question, outcome))

    for _ in range(num_workers):
        threading.Thread(target=work, daemon=True).start()


def _next(waiting: deque[Question]) -> Question | None:
    """The next one, None if another thread has taken the last."""
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _ask(endpoint: Endpoint, question: Question) -> Answer:
    entry = question.entry
    reply = chat(
        endpoint,
        question.messages,
        temperature=entry.temperature,
        top_p=entry.top_p,
        max_new_tokens=entry.max_new_tokens,
        seed=question.seed,
    )
    return Answer(
        reply.text, reply.finish, reply.prompt_tokens, reply.response_tokens, reply.seconds
    )
