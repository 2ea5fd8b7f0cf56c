from __future__ import annotations

import numpy as np
import pytest

from codeact.data import Example, Message, load_examples, tokenize_examples
from codeact.errors import InputError

tokenizers = pytest.importorskip("tokenizers")

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def make_tokenizer(template: str | None, *, eos: str | None = "<|im_end|>", bos: bool = False):
    """Byte-level BPE whose merges straddle a line end that is followed by white space."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["user\nassistant\n\n  def f(x):\n\n    return x\n\n\n"] * 9, trainer)
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token=eos, chat_template=template
    )


def chat(*turns: tuple[str, str], example_id: str = "a") -> Example:
    return Example(example_id, tuple(Message(*turn) for turn in turns), {})


def labelled(tokenizer, row) -> list[str]:
    """Text of each run of labelled tokens."""
    edges = np.flatnonzero(np.diff(np.r_[-100, row.labels, -100] != -100))
    return [tokenizer.decode(row.labels[a:b]) for a, b in edges.reshape(-1, 2)]


@pytest.fixture(scope="module")
def chatml():
    return make_tokenizer(CHATML)


def test_labels_are_the_answer_and_its_end_of_turn(chatml):
    data = [chat(("user", "add x"), ("assistant", "def f(x):\n    return x"))]
    (row,) = tokenize_examples(data, chatml, max_length=512)
    prompt = "<|im_start|>user\nadd x<|im_end|>\n<|im_start|>assistant\n"
    assert chatml.decode(row.input_ids) == prompt + "def f(x):\n    return x<|im_end|>"
    assert labelled(chatml, row) == ["def f(x):\n    return x<|im_end|>"]
    whole = chatml.apply_chat_template([m._asdict() for m in data[0].messages], return_dict=False)
    assert row.input_ids.tolist() == whole[:-1]  # all but the line end after the last turn
    assert (row.input_ids.dtype, row.labels.dtype) == (np.int32, np.int32)


@pytest.mark.parametrize("answer", ["\n\n  x", "  def f(x):", "\n", " ", "x\n\n"])
def test_answers_beginning_or_ending_in_white_space(chatml, answer):
    prompt = chat(("user", "u"), ("assistant", answer))
    (row,) = tokenize_examples([prompt], chatml, max_length=512)
    head = chatml("<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    if answer.strip():
        body = chatml(answer + "<|im_end|>")["input_ids"]
        assert row.input_ids.tolist() == head + body  # what the model sees when it generates
        assert row.labels.tolist() == [-100] * len(head) + body
    else:
        assert row.input_ids.tolist() == head
        assert (row.labels == -100).all()


def test_a_merge_does_straddle_the_boundary(chatml):
    """Guards the test above: with this tokenizer the joint encoding is another one."""
    apart = chatml("assistant\n")["input_ids"] + chatml("\n\n  x")["input_ids"]
    assert chatml("assistant\n\n\n  x")["input_ids"] != apart


def test_multi_turn_labels_every_assistant_turn(chatml):
    data = [
        chat(
            ("system", "s"),
            ("user", "u1"),
            ("assistant", "a1"),
            ("user", "u2"),
            ("assistant", "\n  a2"),
            ("user", "unanswered"),
        )
    ]
    (row,) = tokenize_examples(data, chatml, max_length=512)
    assert labelled(chatml, row) == ["a1<|im_end|>", "\n  a2<|im_end|>"]
    assert "unanswered" not in chatml.decode(row.input_ids)


def test_blank_turn_among_others_gets_no_label(chatml):
    turns = [("user", "u1"), ("assistant", "a1"), ("user", "u2"), ("assistant", " ")]
    result = tokenize_examples([chat(*turns)], chatml, max_length=512)
    assert labelled(chatml, result[0]) == ["a1<|im_end|>"]
    assert chatml.decode(result[0].input_ids).endswith("u2<|im_end|>\n<|im_start|>assistant\n")
    assert result.status == ("ok",)


def test_content_that_is_part_of_the_end_mark(chatml):
    for content in (">", "im", "<|im"):
        (row,) = tokenize_examples(
            [chat(("user", "u"), ("assistant", content))], chatml, max_length=99
        )
        assert labelled(chatml, row) == [content + "<|im_end|>"]


def test_status_and_lost_tokens_of_each_edge(chatml):
    answer = "def f(x):\n    return x"
    data = [
        chat(("user", "u"), ("assistant", answer), example_id="fits"),
        chat(("user", "u"), ("assistant", answer * 3), example_id="cut"),
        chat(("user", "u " * 50), ("assistant", answer), example_id="overflow"),
        chat(("user", "u"), ("assistant", " \n"), example_id="no response"),
        chat(("user", " "), ("assistant", answer), example_id="no instruction"),
        chat(("assistant", answer), example_id="no user"),
        chat(("user", ""), ("assistant", ""), example_id="nothing"),
    ]
    full = tokenize_examples(data, chatml, max_length=10_000)
    limit = int(full.seqlens[0])
    result = tokenize_examples(data, chatml, max_length=limit)
    assert dict(zip(result.ids, result.status, strict=True)) == {
        "fits": "ok",
        "cut": "truncated",
        "overflow": "prompt_overflow",
        "no response": "empty_response",
        "no instruction": "empty_instruction",
        "no user": "empty_instruction",
        "nothing": "empty_response",
    }
    assert result.seqlens.max() == limit
    assert result.num_response_tokens[[2, 3, 6]].tolist() == [0, 0, 0]
    lost = full.num_response_tokens - result.num_response_tokens
    assert result.num_lost_tokens.tolist() == lost.tolist()
    assert lost[1] == full.seqlens[1] - limit
    for part, whole in zip(result, full, strict=True):
        assert part.input_ids.tolist() == whole.input_ids.tolist()[:limit]
        assert part.labels.tolist() == whole.labels.tolist()[:limit]


def test_last_token_on_the_limit(chatml):
    data = [chat(("user", "u"), ("assistant", "a1"))]
    full = tokenize_examples(data, chatml, max_length=99)
    limit = int(full.seqlens[0])
    assert tokenize_examples(data, chatml, max_length=limit).status == ("ok",)
    short = tokenize_examples(data, chatml, max_length=limit - 1)
    assert (short.status, short.num_lost_tokens.tolist()) == (("truncated",), [1])


@pytest.mark.parametrize("bos", [False, True])
def test_plain_form_without_a_template(bos):
    tokenizer = make_tokenizer(None, eos="<|im_end|>", bos=bos)
    turns = [("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v"), ("assistant", "b")]
    (row,) = tokenize_examples([chat(*turns)], tokenizer, max_length=512)
    assert tokenizer.decode(row.input_ids) == "<s>" * bos + (
        "### Instruction:\ns\nu\n### Response:\na<|im_end|>\n"
        "### Instruction:\nv\n### Response:\nb<|im_end|>"
    )
    assert labelled(tokenizer, row) == ["a<|im_end|>", "b<|im_end|>"]


def test_template_without_a_visible_end_of_turn():
    tokenizer = make_tokenizer(
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    (row,) = tokenize_examples([chat(("user", "u"), ("assistant", "a"))], tokenizer, max_length=99)
    assert labelled(tokenizer, row) == ["a\n"]


BAD_TEMPLATES = {
    "changes earlier turns": (
        "{% for m in messages %}{{ loop.length ~ m.content }}{% endfor %}",
        "must be prefix-stable, but it renders the first turns of example a",
    ),
    "another generation prompt": (
        "{% for m in messages %}{{ m.role + m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'bot:' }}{% endif %}",
        "must be prefix-stable",
    ),
    "rejects the roles": (
        "{{ raise_exception('no system role') }}",
        "rejects example a: no system role",
    ),
}


@pytest.mark.parametrize(("template", "message"), BAD_TEMPLATES.values(), ids=BAD_TEMPLATES)
def test_bad_templates(template, message):
    tokenizer = make_tokenizer(template)
    with pytest.raises(InputError, match=f"the chat template of .*{message}"):
        tokenize_examples([chat(("user", "u"), ("assistant", "a"))], tokenizer, max_length=99)


def test_bad_arguments(chatml):
    with pytest.raises(InputError, match="max_length must be at least 1, got 0"):
        tokenize_examples([], chatml, max_length=0)
    with pytest.raises(InputError, match=r"chat template or an EOS token .* has neither"):
        tokenize_examples([], make_tokenizer(None, eos=None), max_length=9)


def test_store_select_and_progress(chatml):
    data = [chat(("user", "u"), ("assistant", "x" * n), example_id=str(n)) for n in range(1, 601)]
    seen: list[tuple[int, int]] = []
    store = tokenize_examples(
        data, chatml, max_length=64, on_progress=lambda *report: seen.append(report)
    )
    assert seen[-1] == (600, 600)
    assert len(seen) > 1
    assert store.offsets.dtype == np.int64
    assert store.offsets[-1] == len(store.input_ids) == len(store.labels)
    assert store.seqlens.tolist() == [len(row.input_ids) for row in store]
    counted = [int((row.labels != -100).sum()) for row in store]
    assert store.num_response_tokens.tolist() == counted
    some = store.select(np.array([599, 0, 0]))
    assert some.ids == ("600", "1", "1")
    assert some.status == ("truncated", "ok", "ok")
    assert some.num_lost_tokens.tolist() == store.num_lost_tokens[[599, 0, 0]].tolist()
    for position, original in enumerate([599, 0, 0]):
        assert some[position].input_ids.tolist() == store[original].input_ids.tolist()
        assert some[position].labels.tolist() == store[original].labels.tolist()
    assert store[-1].input_ids.tolist() == store[599].input_ids.tolist()
    with pytest.raises(IndexError, match="600 is out of range"):
        store[600]


def test_empty_set(chatml):
    store = tokenize_examples([], chatml, max_length=9)
    assert (len(store), store.offsets.tolist(), store.seqlens.tolist()) == (0, [0], [])
    assert store.num_response_tokens.tolist() == store.select([]).num_lost_tokens.tolist() == []


def test_real_rows_with_a_real_template(data_folder, smollm2):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    examples = load_examples(data_folder / "sft" / "gpteacher_codegen.jsonl.gz")[:200]
    store = tokenize_examples(examples, tokenizer, max_length=2048)
    for example, row in zip(examples, store, strict=True):
        assert labelled(tokenizer, row) == [example.response + "<|im_end|>"]
        turns = [turn._asdict() for turn in example.messages[:1]]
        head = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        assert row.input_ids[: len(head)].tolist() == head
        assert row.labels[len(head)] == row.input_ids[len(head)]
