"""Compile configurations of the attention JVP kernel; see ahead_of_time.py.

Run as a script, without TRITON_INTERPRET: `python attention_ahead_of_time.py 90x64 90x128`, which
are capabilities and head_dims. One process for all, since to start one takes seconds.
"""

from __future__ import annotations

import json
import sys

import torch
from ahead_of_time import compile_only
from triton import knobs

from codeact.kernels.attention_operands import TILES
from codeact.kernels.varlen_attention_jvp import varlen_attention_jvp

NUM_HEADS, SOFTCAP = 7, 50.0  # what needs most: Qwen2.5's heads for one key head, Gemma 2's cap


def compile_case(capability: int, head_dim: int) -> None:
    descriptors = capability in (90, 100)
    fitting = TILES[descriptors]
    tiles = fitting[min(dim for dim in fitting if dim >= head_dim)]
    query = torch.zeros(128, NUM_HEADS, head_dim, dtype=torch.bfloat16)
    key = torch.zeros(128, 1, head_dim, dtype=torch.bfloat16)
    bounds = torch.tensor([0, 128], dtype=torch.int32)
    with compile_only(capability) as found:
        varlen_attention_jvp(
            query, key, key, query, key, key, bounds, 0.1, None, SOFTCAP,
            tiles=tiles, descriptors=descriptors,
        )  # fmt: skip
    (kernel,) = found
    facts = {"case": f"{capability}x{head_dim}", "tiles": tiles}
    print(json.dumps({**facts, **kernel}), flush=True)


if __name__ == "__main__":
    knobs.nvidia.dump_ptxas_log = True
    knobs.compilation.always_compile = True  # a cached kernel has no log
    for case in sys.argv[1:]:
        capability, head_dim = case.split("x")
        compile_case(int(capability), int(head_dim))
