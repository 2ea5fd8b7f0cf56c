"""A conversation as text, with the character spans the assistant speaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from codeact.data.example import Example, Message
from codeact.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The form of CodeACT for models without a template of their own; further turns follow on a new
# line, and a system message is the first line of the instruction.
_PLAIN_TEMPLATE = (
    "{{ bos }}{% for message in messages %}"
    "{% if message.role == 'assistant' %}"
    "{{ '### Response:\\n' + message.content + eos_token }}"
    "{% else %}"
    "{% if loop.first %}{{ '### Instruction:\\n' }}"
    "{% elif loop.previtem.role == 'assistant' %}{{ '\\n### Instruction:\\n' }}{% endif %}"
    "{{ message.content + '\\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)


class Rendering(NamedTuple):
    """Text of a conversation up to its last assistant turn.

    ``spans`` are the (begin, end) characters of each assistant turn that says something, its end of
    turn included; ``boundaries`` all their ends and ``len(text)``, ascending, without 0.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    boundaries: tuple[int, ...]
    empty_instruction: bool


Template = Callable[[Sequence[Message], bool], str]


def make_template(tokenizer: PreTrainedTokenizerBase) -> Template:
    """``(turns, generation prompt or not) -> text`` by the chat template, or the plain one.

    Raises:
        InputError: The tokenizer has neither a chat template nor an EOS token.
    """
    options: dict[str, Any] = {}
    if not tokenizer.chat_template:
        if tokenizer.eos_token is None:
            raise InputError(
                "tokenizer must have a chat template or an EOS token to end a response with, "
                f"{name_of(tokenizer)} has neither"
            )
        first = tokenizer("a")["input_ids"][0]
        adds_bos = tokenizer.bos_token is not None and first == tokenizer.bos_token_id
        options = {
            "chat_template": _PLAIN_TEMPLATE,
            "bos": str(tokenizer.bos_token) if adds_bos else "",
        }

    def apply(turns: Sequence[Message], generation: bool) -> str:
        text = tokenizer.apply_chat_template(
            [turn._asdict() for turn in turns],
            tokenize=False,
            add_generation_prompt=generation,
            **options,
        )
        return str(text)

    return apply


def name_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """What an error calls it."""
    return tokenizer.name_or_path or type(tokenizer).__name__


def make_renderer(tokenizer: PreTrainedTokenizerBase) -> Callable[[Example], Rendering]:
    """A function that renders examples with the tokenizer's chat template, or the plain one.

    Raises:
        InputError: The tokenizer has neither a chat template nor an EOS token. The returned
            function raises it for a conversation that the template rejects, and for a template
            that is not prefix-stable.
    """
    apply, name = make_template(tokenizer), name_of(tokenizer)

    def render(example: Example) -> Rendering:
        from jinja2 import TemplateError  # comes with every chat template

        try:
            return _render(example, apply)
        except TemplateError as error:
            raise InputError(
                f"the chat template of {name} rejects example {example.id}: {error}"
            ) from None
        except _UnstableTemplateError:
            raise InputError(
                f"the chat template of {name} must be prefix-stable, but it renders the first "
                f"turns of example {example.id} differently once the conversation goes on"
            ) from None

    return render


class _UnstableTemplateError(Exception):
    """A longer conversation does not begin with the rendering of a shorter one."""


def _render(example: Example, apply: Template) -> Rendering:
    turns = example.messages
    speaking = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
    text, spans = "", []
    for turn in speaking:
        content = turns[turn].content.strip()
        whole = apply(turns[: turn + 1], False)
        begin = _prompt_length(turns[:turn], whole, content, apply)
        # A prompt shorter than what came before would put this answer inside another turn.
        if begin < len(text) or not whole.startswith(text):
            raise _UnstableTemplateError
        if content:
            spans.append((begin, _answer_end(whole, begin, content)))
        text = whole
    if speaking and turns[speaking[-1]].content.strip():
        text = text[: spans[-1][1]]
    elif turns and speaking[-1:] != [0]:  # nothing to learn at the end: keep the prompt alone
        text = apply(turns[: speaking[-1]] if speaking else turns, True)
    boundaries = sorted({edge for span in spans for edge in span if edge} | {len(text)})
    silent = not any(turn.content.strip() for turn in turns if turn.role != "assistant")
    return Rendering(text, tuple(spans), tuple(boundaries), silent)


def _prompt_length(
    before: Sequence[Message],
    whole: str,
    content: str,
    apply: Template,
) -> int:
    """Where the answer begins in ``whole``."""
    if not before:  # transformers cannot render an empty conversation
        return max(whole.rfind(content), 0)  # the last: a default system turn may say it too
    prompt = apply(before, True)
    if not whole.startswith(prompt):
        raise _UnstableTemplateError
    return len(prompt)


def _answer_end(whole: str, begin: int, content: str) -> int:
    """End of the end-of-turn mark; white space that follows the mark is the template's."""
    said = whole.find(content, begin)
    mark = whole[said + len(content) :] if said >= 0 else whole[begin:]
    # Without a visible mark the white space itself ends the turn, and is to be learnt.
    return len(whole.rstrip()) if mark.strip() else len(whole)
