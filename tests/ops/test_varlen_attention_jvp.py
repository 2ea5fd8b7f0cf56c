from __future__ import annotations

import itertools

import pytest
import torch
from attention_jvp import (
    BACKENDS,
    SLACK,
    Inputs,
    assert_close,
    interpreted,
    make_inputs,
    needs_triton,
    truth,
)

from codeact.ops import varlen_attention_jvp
from codeact.ops._varlen_attention_jvp_reference import varlen_attention_jvp_reference

OPTIONS = {
    "plain": {},
    "window-1": {"sliding_window": 1},
    "window-7": {"sliding_window": 7},
    "window-beyond": {"sliding_window": 1000},
    "softcap": {"softcap": 1.5},
    "softcap-window": {"softcap": 1.5, "sliding_window": 7},
    "scaling": {"scaling": 0.9},
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_match_float64(backend, options, device):
    inputs = make_inputs(device=device)
    found = varlen_attention_jvp(*inputs, **options, backend=backend)
    assert_close(found, truth(inputs, **options), SLACK[torch.float32])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("head_dim", [8, 72])  # below and beyond the blocks of 16 and 64
def test_half_precision_matches_float64(backend, dtype, head_dim, device):
    inputs = make_inputs(dtype=dtype, head_dim=head_dim, device=device)
    found = varlen_attention_jvp(*inputs, backend=backend)
    assert found.output.dtype == found.tangent.dtype == dtype
    assert_close(found, truth(inputs), SLACK[dtype])


def test_the_reference_is_exact_in_float64():
    inputs = make_inputs().map(lambda x: x.double())
    found = varlen_attention_jvp(*inputs, softcap=2.0, sliding_window=9)
    assert found.tangent.dtype == torch.float64
    assert_close(found, truth(inputs, softcap=2.0, sliding_window=9), 1e-14)


def test_blocks_of_queries_do_not_matter(monkeypatch):
    """The reference bounds its memory: blocks of three queries give what one gives."""
    inputs = make_inputs().map(lambda x: x.double())
    whole = varlen_attention_jvp(*inputs, sliding_window=9)
    monkeypatch.setattr(f"{varlen_attention_jvp_reference.__module__}._MAX_SCORES", 4 * 21 * 3)
    assert_close(varlen_attention_jvp(*inputs, sliding_window=9), whole, 1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("moved", list(itertools.product([False, True], repeat=3)))
def test_a_tangent_of_none_is_zero(backend, moved, device):
    inputs = make_inputs(seqlens=(13, 6), moved=moved, device=device)
    found = varlen_attention_jvp(*inputs, softcap=2.0, backend=backend)
    output, tangent = truth(inputs, softcap=2.0)
    assert_close(found, (output, tangent), SLACK[torch.float32])
    assert found.tangent.any() == any(moved)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("heads", [(1, 1), (7, 1), (6, 2), (20, 1)])  # 20 heads need two blocks
def test_groups_of_heads(backend, heads, device):
    inputs = make_inputs(seqlens=(18, 5), heads=heads, device=device)
    found = varlen_attention_jvp(*inputs, sliding_window=11, backend=backend)
    assert_close(found, truth(inputs, sliding_window=11), SLACK[torch.float32])


@needs_triton
@interpreted
@pytest.mark.parametrize("descriptors", [False, True])
@pytest.mark.parametrize("window", [None, 37])
def test_tiles_that_need_no_mask(descriptors, window, device):
    """Tiles of 16 keys that all 16 rows see, between masked ones on both sides."""
    from codeact.kernels.attention_operands import Tiles
    from codeact.kernels.varlen_attention_jvp import varlen_attention_jvp as launch

    inputs = make_inputs(seqlens=(5, 60, 7), heads=(1, 1), device=device)
    found = launch(
        *inputs, 0.25, window, None, tiles=Tiles(16, 16, 16, 4, 2), descriptors=descriptors
    )
    assert_close(found, truth(inputs, sliding_window=window), SLACK[torch.float32])


@needs_triton
@interpreted
def test_values_in_several_blocks(device):
    """A program that holds half of the columns of values computes the scores all the same."""
    from codeact.kernels.attention_operands import Tiles
    from codeact.kernels.varlen_attention_jvp import varlen_attention_jvp as launch

    inputs = make_inputs(seqlens=(20,), head_dim=40, device=device)
    found = launch(*inputs, 40**-0.5, None, None, tiles=Tiles(16, 16, 16, 4, 2))
    assert_close(found, truth(inputs), SLACK[torch.float32])


@needs_triton
@pytest.mark.parametrize("scale", [1e-6, 2e4])
def test_float16_tangents_of_any_size(scale, device):
    """A product of weights and scores' tangents would vanish or overflow in float16."""
    inputs = make_inputs(seqlens=(30,), device=device)
    tangents = [(t * scale / 5).clamp(-6e4, 6e4) for t in inputs[3:6]]
    small_values = inputs.value * 0.05  # keeps the result in range, not what leads to it
    inputs = Inputs(inputs.query, inputs.key, small_values, *tangents, inputs.cu_seqlens)
    inputs = inputs.map(lambda x: x.half())
    found = varlen_attention_jvp(*inputs, backend="triton")
    # Entries of 1e-6 are subnormal: the result rounds to multiples of 6e-8.
    expected = truth(inputs)
    error = (found.tangent.double() - expected[1]).abs().max()
    assert error <= SLACK[torch.float16] * expected[1].abs().max() + 3e-8


@pytest.mark.parametrize("backend", BACKENDS)
def test_operands_laid_out_otherwise(backend, device):
    """Heads before tokens as models have them, a tangent of stride 0, one on an odd address."""
    inputs = make_inputs(seqlens=(19, 4), device=device)
    heads_first = inputs.query.transpose(0, 1).contiguous().transpose(0, 1)
    same_for_all = inputs.key_tangent[:1].expand_as(inputs.key)
    odd = torch.zeros(inputs.value.numel() + 1, device=device)[1:].view_as(inputs.value)
    odd.copy_(inputs.value_tangent)
    inputs = inputs._replace(query=heads_first, key_tangent=same_for_all, value_tangent=odd)
    assert_close(
        varlen_attention_jvp(*inputs, backend=backend), truth(inputs), SLACK[torch.float32]
    )


@needs_triton
def test_a_descriptor_gets_an_address_that_it_takes():
    """TMA wants multiples of 16 bytes, which a slice of a larger buffer need not begin at."""
    from codeact.kernels.attention_operands import aligned

    odd = torch.arange(65.0)[1:].view(2, 4, 8)
    assert odd.data_ptr() % 16 != 0
    found = aligned(odd)
    assert found.data_ptr() % 16 == 0
    assert torch.equal(found, odd)
    assert aligned(found) is found


@pytest.mark.parametrize("backend", BACKENDS)
def test_huge_scores_and_a_broken_value(backend, device):
    inputs = make_inputs(seqlens=(17,), device=device)
    huge = inputs._replace(query=inputs.query * 1e4)
    output, tangent = varlen_attention_jvp(*huge, backend=backend)
    expected = truth(huge)
    assert_close((output,), expected[:1], 1e-4)
    # Where two scores of 1e4 tie nearly, float32 cannot tell their weights: compare the rest.
    settled = (output.double() - expected[0]).abs().amax(dim=(1, 2)) < 1e-6
    assert settled.sum() >= 12
    assert_close((tangent[settled],), (expected[1][settled],), 1e-3)
    broken = inputs.query.clone()
    broken[9, 0, 0] = float("nan")
    output, tangent = varlen_attention_jvp(*inputs._replace(query=broken), backend=backend)
    assert output[9, 0].isnan().all()
    assert tangent[9, 0].isnan().all()
    assert not output[8].isnan().any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_sequences_do_not_touch(backend, device):
    inputs = make_inputs(seqlens=(9, 30, 6), heads=(2, 2), device=device)
    before = varlen_attention_jvp(*inputs, backend=backend)
    again = varlen_attention_jvp(*inputs, backend=backend)
    others = torch.cat([torch.arange(9), torch.arange(39, 45)]).to(device)
    changed = inputs.map(lambda x: x.index_copy(0, others, 3 * x[others]))
    after = varlen_attention_jvp(*changed, backend=backend)
    alone = inputs.map(lambda x: x[9:39])._replace(
        cu_seqlens=torch.tensor([0, 30], dtype=torch.int32, device=device)
    )
    alone = varlen_attention_jvp(*alone, backend=backend)
    for a, b, c, d in zip(before, again, after, alone, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a[9:39], c[9:39])
        assert not torch.equal(a[others], c[others])
        assert (a[9:39] - d).abs().max() <= 2e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_tokens(backend, device):
    inputs = make_inputs(seqlens=(0,), device=device)
    assert varlen_attention_jvp(*inputs, backend=backend).tangent.shape == (0, 4, 16)


BAD = {
    "2-D": ({"query": torch.ones(5, 16)}, {}, r"got \(5, 16\)"),
    "heads": ({"query": torch.ones(5, 3, 16)}, {}, "a multiple of num_kv_heads"),
    "value": ({"value": torch.ones(5, 2, 8)}, {}, r"\(5, 2, 8\)"),
    "dtype": ({"key": torch.ones(5, 2, 16).half()}, {}, "key must be torch.float32 on cpu"),
    "tangent": ({"value_tangent": torch.ones(5, 4, 16)}, {}, r"value_tangent .* \(5, 4, 16\)"),
    "tangent-dtype": ({"key_tangent": torch.ones(5, 2, 16).half()}, {}, "key_tangent .*float16"),
    "bounds": ({"cu_seqlens": torch.tensor([0, 4])}, {}, r"from 0 to 5 tokens, got \[0, 4\]"),
    "bounds-dtype": ({"cu_seqlens": torch.tensor([0.0, 5.0])}, {}, "integers, got torch.float32"),
    "window": ({}, {"sliding_window": 0}, "sliding_window must be at least 1 or None, got 0"),
    "softcap": ({}, {"softcap": 0.0}, "softcap must be above 0 or None"),
    "scaling": ({}, {"scaling": -1.0}, "scaling must be above 0 or None"),
}


@pytest.mark.parametrize(("changed", "options", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named(changed, options, message):
    inputs = make_inputs(seqlens=(5,))._replace(**changed)
    with pytest.raises(ValueError, match=message):
        varlen_attention_jvp(*inputs, **options)


@needs_triton
@pytest.mark.parametrize(
    ("head_dim", "dtype", "message"),
    [(8, torch.float64, "got torch.float64"), (264, torch.float16, "up to 256, got 264")],
)
def test_what_the_kernel_cannot_is_refused(head_dim, dtype, message):
    inputs = make_inputs(seqlens=(5,), head_dim=head_dim, dtype=dtype)
    with pytest.raises(ValueError, match=f"{message}; use backend='reference'"):
        varlen_attention_jvp(*inputs, backend="triton")
