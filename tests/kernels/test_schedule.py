"""The schedule of streamed products: splits of the columns and what 16-byte loads can read."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from codeact.kernels.schedule import Device, best_num_splits, lse_tile, plan

H100 = Device((9, 0), num_sms=132, l2_bytes=50 * 2**20)


@pytest.mark.parametrize(
    ("num_rows", "dim", "num_columns", "num_splits"),
    [
        (16384, 4096, 128_256, 6),  # 25 blocks of 1 MiB in half of the L2, on 132 SMs
        (16384, 896, 151_936, 2),  # 114 of 224 KiB
        (1024, 4096, 128_256, 17),  # 8 blocks: 136 programs, of which 132 run at once
        (128, 768, 300, 2),  # as many as there are tiles
        (10**6, 64, 256, 1),
    ],
)
def test_splits_fill_the_device_and_keep_the_rows_in_l2(num_rows, dim, num_columns, num_splits):
    tile = lse_tile(2, (9, 0))
    num_blocks, num_tiles = -(-num_rows // tile.rows), -(-num_columns // tile.cols)
    chosen = best_num_splits(num_blocks, num_tiles, tile.rows * dim * 2, H100)
    least_time = -(-num_blocks * num_splits // 132) * -(-num_tiles // num_splits)
    time = -(-num_blocks * chosen // 132) * -(-num_tiles // chosen)
    assert num_splits <= chosen <= 2 * num_splits
    assert time <= least_time, f"{chosen} splits end later than {num_splits}"


def test_what_is_aligned_is_not_copied():
    rows = torch.zeros(4, 64, dtype=torch.bfloat16)
    for tma in (False, True):
        cut = plan(rows, rows, lse_tile, tma=tma)
        assert cut.aligned(rows) is rows
        assert cut.dim == 64


@pytest.mark.parametrize(
    ("tensor", "dim"),
    [
        pytest.param(torch.ones(4, 64).half()[:, :33], 40, id="dim"),
        pytest.param(torch.ones(4, 65).half()[:, :64], 64, id="stride"),
        pytest.param(torch.ones(4, 72).half()[:, 1:65], 64, id="address"),
        pytest.param(torch.ones(64, 4).half().T, 64, id="transposed"),
        pytest.param(torch.ones(1, 64).half().expand(4, 64), 64, id="expanded"),
    ],
)
def test_what_descriptors_cannot_read_is_copied(tensor, dim):
    cut = plan(tensor, tensor, lse_tile, tma=True)
    copy = cut.aligned(tensor)
    assert copy.shape == (4, dim)
    assert copy.data_ptr() % 16 == copy.stride(0) * 2 % 16 == 0
    assert torch.equal(copy[:, : tensor.shape[1]], tensor)
    assert (copy[:, tensor.shape[1] :] == 0).all()
    cut.operand(copy, 32)  # raises where a descriptor is impossible
