from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codeact import _C
from codeact.ops.gather import (
    PackLayout,
    gather_tokens,
    gather_tokens_reference,
    pack_layout,
    pack_layout_reference,
)

DTYPES = [np.int16, np.uint16, np.int32, np.uint32, np.int64]


def int64(*values):
    return np.array(values, dtype=np.int64)


@st.composite
def segments(draw):
    num_values = draw(st.integers(0, 50))
    bounds = st.tuples(st.integers(0, num_values), st.integers(0, num_values)).map(sorted)
    drawn = draw(st.lists(bounds, max_size=12))
    return num_values, int64(*(a for a, _ in drawn)), int64(*(b for _, b in drawn))


@settings(max_examples=200, deadline=None)
@given(segments(), st.sampled_from(DTYPES))
def test_gathers_what_the_reference_does(segment, dtype):
    num_values, starts, stops = segment
    limits = np.iinfo(dtype)
    values = np.random.default_rng(0).integers(limits.min, limits.max, num_values, dtype, True)
    gathered = gather_tokens(values, starts, stops)
    assert gathered.dtype == torch.int64
    assert torch.equal(gathered, gather_tokens_reference(values, starts, stops))


@pytest.mark.parametrize("dtype", DTYPES)
def test_widening_keeps_the_extremes(dtype):
    limits = np.iinfo(dtype)
    values = np.array([limits.min, limits.max], dtype=dtype)
    assert gather_tokens(values, int64(0), int64(2)).tolist() == [limits.min, limits.max]


def test_reads_a_memory_mapped_file(tmp_path):
    np.save(tmp_path / "tokens.npy", np.arange(1000, dtype=np.uint16))
    values = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    assert gather_tokens(values, int64(990, 3), int64(993, 5)).tolist() == [990, 991, 992, 3, 4]


def test_writes_to_a_given_tensor():
    buffer = torch.full((10,), -1)
    out = buffer[2:5]
    gathered = gather_tokens(np.arange(9, dtype=np.int32), int64(7, 0), int64(9, 1), out=out)
    assert gathered is out
    assert buffer.tolist() == [-1, -1, 7, 8, 0, -1, -1, -1, -1, -1]


@pytest.mark.gpu
def test_writes_to_pinned_memory():
    out = torch.empty(3, dtype=torch.int64, pin_memory=True)
    gather_tokens(np.arange(9, dtype=np.int32), int64(7, 0), int64(9, 1), out=out)
    assert out.cuda(non_blocking=True).tolist() == [7, 8, 0]


VALUES = np.arange(9, dtype=np.int32)


@pytest.mark.parametrize(
    ("values", "starts", "stops", "message"),
    [
        pytest.param(VALUES, int64(0), int64(10), r"segment 0 = \[0, 10\) does not", id="beyond"),
        pytest.param(VALUES, int64(0, -1), int64(1, 3), r"segment 1 = \[-1, 3\)", id="before"),
        pytest.param(VALUES, int64(4), int64(3), r"\[4, 3\) does not lie in 9", id="backwards"),
        pytest.param(
            VALUES, int64(-(2**63)), int64(2**63 - 1), "does not lie in 9 values", id="overflow"
        ),
        pytest.param(VALUES, int64(4), int64(5, 6), "stops must be as many", id="unpaired"),
        pytest.param(VALUES, np.zeros(1, np.int32), int64(5), "starts must be", id="int32-bounds"),
        pytest.param(VALUES, int64(0), [1], "stops must be .* got list", id="list-bounds"),
        pytest.param(VALUES, int64(0)[None], int64(1), "starts must be a 1-D", id="2-D-bounds"),
        pytest.param(VALUES[::2], int64(0), int64(1), "contiguous and aligned", id="strided"),
        pytest.param(VALUES.astype(">i4"), int64(0), int64(1), "got >i4", id="big-endian"),
        pytest.param(VALUES.astype(float), int64(0), int64(1), "got float64", id="float"),
        pytest.param(VALUES.astype(np.uint64), int64(0), int64(1), "got uint64", id="uint64"),
        pytest.param(VALUES.reshape(3, 3), int64(0), int64(1), "1-D, got 2-D", id="2-D"),
        pytest.param([1, 2], int64(0), int64(1), "got list", id="list"),
        pytest.param(
            np.zeros(9, np.uint8)[1:].view(np.int32), int64(0), int64(1), "aligned", id="misaligned"
        ),
    ],
)
def test_bad_input_is_named(values, starts, stops, message):
    with pytest.raises(ValueError, match=message):
        gather_tokens(values, starts, stops)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (torch.empty(4, dtype=torch.int64), "out must be 1-D with 3 items, got 1-D with 4"),
        (torch.empty(2, dtype=torch.int64), "got 1-D with 2"),
        (torch.empty(1, 3, dtype=torch.int64), "got 2-D with 3"),
        (torch.empty(3, dtype=torch.int32), "out must be a contiguous torch.int64 CPU tensor"),
        (torch.empty(6, dtype=torch.int64)[::2], r"contiguous .* strides \(2,\)"),
        (torch.empty(3, dtype=torch.int64, device="meta"), "CPU tensor, got torch.int64 on meta"),
    ],
    ids=["longer", "shorter", "2-D", "int32", "strided", "device"],
)
def test_an_unfit_output_is_refused(out, message):
    with pytest.raises(ValueError, match=message):
        gather_tokens(VALUES, int64(0), int64(3), out=out)


def test_a_bad_segment_writes_nothing():
    out = torch.full((6,), -1)
    with pytest.raises(ValueError, match="segment 1"):
        gather_tokens(VALUES, int64(0, 8), int64(3, 11), out=out)
    assert out.tolist() == [-1] * 6


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=20))
def test_lays_out_what_the_reference_does(seqlens):
    layout, want = pack_layout(seqlens), pack_layout_reference(seqlens)
    for got, expected in zip(layout, want, strict=True):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)


def test_a_layout():
    layout = pack_layout([3, 0, 2])
    assert [part.tolist() for part in layout] == [[0, 1, 2, 0, 1], [0, 0, 0, 2, 2], [0, 3, 3, 5]]
    assert [part.dtype for part in layout] == [torch.int64, torch.int32, torch.int32]


def test_what_remains_of_a_longer_stream_is_one_more_sequence():
    for num_tokens, want in [(5, [3, 2]), (9, [3, 2, 4])]:
        for got, expected in zip(
            pack_layout([3, 2], num_tokens=num_tokens), pack_layout(want), strict=True
        ):
            assert torch.equal(got, expected)


def test_a_layout_goes_to_given_tensors():
    out = PackLayout(
        torch.empty(5, dtype=torch.int64),
        torch.empty(5, dtype=torch.int32),
        torch.empty(4, dtype=torch.int32),
    )
    assert pack_layout([3, 0, 2], out=out) is out
    for got, expected in zip(out, pack_layout([3, 0, 2]), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("seqlens", "options", "message"),
    [
        ([3, -1], {}, r"seqlens\[1\] = -1 is negative"),
        ([2**31 - 1, 1], {}, "seqlens sum to more than 2147483647 tokens"),
        ([1.5], {}, "seqlens must be integers, got float64"),
        ([float("nan")], {}, "seqlens must be integers, got float64"),
        ([[1]], {}, "seqlens must be 1-D"),
        ([2**31], {}, r"seqlens\[0\] = 2147483648 is above"),
        ([3, 4], {"num_tokens": 6}, "seqlens sum to 7 tokens, above num_tokens=6"),
        ([3, 4], {"num_tokens": 2**31}, "num_tokens must be an integer from 0 to 2147483647"),
    ],
)
def test_bad_lengths_are_named(seqlens, options, message):
    with pytest.raises(ValueError, match=message):
        pack_layout(seqlens, **options)


def test_an_unfit_layout_is_refused():
    fitting = pack_layout([3, 2])
    with pytest.raises(ValueError, match="seq_idx must be 1-D with 5 items, got 1-D with 6"):
        pack_layout([3, 2], out=fitting._replace(seq_idx=torch.empty(6, dtype=torch.int32)))
    with pytest.raises(ValueError, match=r"cu_seqlens must be a contiguous torch.int32"):
        pack_layout([3, 2], out=fitting._replace(cu_seqlens=torch.empty(3)))


def test_the_native_border_checks_for_itself():
    with pytest.raises(TypeError):
        _C.gather_tokens(VALUES.astype(float), int64(0), int64(1))
    frozen = np.zeros(1, np.int64)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="not writeable"):
        _C.gather_tokens(VALUES, int64(0), int64(1), frozen)
