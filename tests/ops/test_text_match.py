from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeact import _C
from codeact.ops.text_match import TextIndex, find_texts_reference, flat_text, words_of

# White space of every kind, letters whose lower case is longer, depends on the place or is ASCII.
WIDE_SPACE = "\x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000\x1c\x1f\t\n\v\f\r "
LETTERS = "abB_9.é漢İΣK\u200b\u2007\u2010\ud800🙂\x00"
TEXTS = st.text(st.sampled_from(WIDE_SPACE + LETTERS), max_size=30)


def same(left, right):
    assert left.found.dtype == left.overlaps.dtype == np.int32
    assert left.found.tolist() == right.found.tolist()
    assert left.overlaps.tolist() == right.overlaps.tolist()


@settings(max_examples=300, deadline=None)
@given(
    patterns=st.lists(TEXTS.filter(str.strip), max_size=8),
    documents=st.lists(TEXTS, max_size=5),
    texts=st.lists(TEXTS, max_size=6),
    ngram=st.integers(1, 3),
    needed=st.integers(1, 3),
)
def test_equals_its_reference(patterns, documents, texts, ngram, needed):
    texts = texts + [f"x{text}y {text}" for text in patterns + documents]
    index = TextIndex(patterns, documents, ngram=ngram)
    expected = find_texts_reference(patterns, documents, texts, ngram=ngram, needed=needed)
    same(index.find(texts, needed=needed), expected)
    same(index.find(texts, needed=needed, num_threads=3), expected)


def test_long_texts_of_few_letters():
    draw = np.random.default_rng(0)

    def text(size):
        return "".join(draw.choice(list("aab \n"), size))

    patterns = [flat for size in range(1, 80) if (flat := flat_text(text(size)))]
    documents = [text(200) for _ in range(20)]
    texts = [text(size) for size in draw.integers(0, 3000, 200)]
    index = TextIndex(patterns, documents, ngram=3)
    expected = find_texts_reference(patterns, documents, texts, ngram=3)
    assert min(len(expected.found), len(expected.overlaps)) > 1000
    same(index.find(texts, num_threads=2), expected)


def test_needed_is_one_number_or_one_for_each_document():
    index = TextIndex([], ["a b c d", "a b"], ngram=2)
    assert index.num_ngrams.tolist() == [3, 1]
    assert index.find(["a b c"], needed=[2, 1]).overlaps.tolist() == [[0, 0, 2], [0, 1, 1]]
    assert index.find(["a b c"], needed=[3, 1]).overlaps.tolist() == [[0, 1, 1]]
    assert index.find(["a b c"], needed=2).overlaps.tolist() == [[0, 0, 2]]
    assert index.find(["a b c"], needed=[2, 2**40]).overlaps.tolist() == [[0, 0, 2]]


def test_every_space_of_python_and_no_other():
    spaces = [chr(code) for code in range(0x11000) if chr(code).isspace()]
    others = [chr(code) for code in range(0x11000) if not chr(code).isspace()]
    index = TextIndex(["begin end"], [], ngram=1)
    assert len(index.find([f"begin{space}end" for space in spaces]).found) == len(spaces)
    assert index.find(["begin" + other + "end" for other in others]).found.tolist() == []


def test_nothing():
    found = TextIndex([], [], ngram=1).find([], needed=[])
    assert (found.found.shape, found.overlaps.shape) == ((0, 2), (0, 3))
    found = TextIndex(["pattern"], [""], ngram=4).find(["", "pattern " * 3])
    assert (found.found.tolist(), found.overlaps.tolist()) == ([[1, 0]], [])


def test_refused():
    with pytest.raises(ValueError, match=r"patterns\[1\] must hold more than white space"):
        TextIndex(["a", " \n"], [], ngram=1)
    with pytest.raises(ValueError, match="ngram must be from 1 to 2147483647, got 0"):
        TextIndex([], [], ngram=0)
    index = TextIndex([], ["a", "b"], ngram=1)
    with pytest.raises(ValueError, match="needed must be at least 1, got 0"):
        index.find([], needed=[1, 0])
    for needed in (1.5, float("nan"), [True, True]):
        with pytest.raises(ValueError, match="needed must be whole numbers, got"):
            index.find([], needed=needed)
    with pytest.raises(ValueError, match="broadcast"):
        index.find([], needed=[1, 1, 1])
    with pytest.raises(ValueError, match="num_threads must be from 1 to 1024, got 0"):
        index.find([], num_threads=0)
    with pytest.raises(ValueError, match="index must come from text_index"):
        _C.find_texts(capsule(), [], np.ones(2, np.int32), 1)


def capsule():
    """Somebody else's capsule."""
    import datetime

    return datetime.datetime_CAPI


def test_words():
    assert words_of("Return x_1 + ÄB2") == ["return", "x_1", "b2"]
