"""Compile every configuration of the attention JVP kernel; see ahead_of_time.py.

Run as a script, without TRITON_INTERPRET: `python attention_ahead_of_time.py CAPABILITY HEAD_DIM`.
"""

from __future__ import annotations

import json
import sys

import torch
from ahead_of_time import compile_only
from triton import knobs

from codeact.kernels.attention_operands import TILES
from codeact.kernels.varlen_attention_jvp import varlen_attention_jvp

# (query heads, key heads) and softcap: Qwen2.5's seven heads a key head, Gemma 2's cap.
CASES = {"plain": ((4, 4), None), "groups of 7, softcap": ((7, 1), 50.0)}


def compile_case(capability: int, head_dim: int, case: str) -> None:
    (num_heads, num_kv_heads), softcap = CASES[case]
    descriptors = capability in (90, 100)
    fitting = TILES[descriptors]
    tiles = fitting[min(dim for dim in fitting if dim >= head_dim)]
    query = torch.zeros(128, num_heads, head_dim, dtype=torch.bfloat16)
    key = torch.zeros(128, num_kv_heads, head_dim, dtype=torch.bfloat16)
    bounds = torch.tensor([0, 128], dtype=torch.int32)
    with compile_only(capability) as found:
        varlen_attention_jvp(
            query, key, key, query, key, key, bounds, 0.1, None, softcap,
            tiles=tiles, descriptors=descriptors,
        )  # fmt: skip
    (kernel,) = found
    facts = {"capability": capability, "head_dim": head_dim, "case": case}
    print(json.dumps({**facts, "tiles": tiles, **kernel}), flush=True)


if __name__ == "__main__":
    knobs.nvidia.dump_ptxas_log = True
    knobs.compilation.always_compile = True  # a cached kernel has no log
    capability, head_dim = int(sys.argv[1]), int(sys.argv[2])
    for case in CASES if capability == 90 else ["groups of 7, softcap"]:  # the largest of them
        compile_case(capability, head_dim, case)
