"""A fused loss under FSDP, of both kinds: the gradients of two ranks are those of one model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference import make_plan, make_store, tiny
from torch import nn

from codeact.models import fuse_loss
from codeact.packing import PackedCollator, PackedDataset
from codeact.training import packed_loss, total_weight

KINDS = ["fsdp1", "fsdp1-head", "fsdp2", "fsdp2-head"]


def batches() -> list[dict[str, Any]]:
    plan, collate = make_plan(2), PackedCollator(loss_norm="sample")
    dataset = PackedDataset(make_store(), plan)
    return [collate([dataset[int(i)] for i in indices]) for indices in plan.epoch(0)[:2]]


def shard(model: Any, kind: str) -> nn.Module:
    """The layers are units of their own, as accelerate makes them; in "-head" the head is, too."""
    units = [*model.model.layers, *([model.lm_head] if kind.endswith("head") else [])]
    if kind.startswith("fsdp2"):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (2,))
        for unit in units:
            fully_shard(unit, mesh=mesh)
        return fully_shard(model, mesh=mesh)
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import CustomPolicy

    policy = CustomPolicy(lambda module: any(module is unit for unit in units))
    options: dict[str, Any] = {"use_orig_params": True, "device_id": torch.device("cpu")}
    wrapped = FullyShardedDataParallel(model, auto_wrap_policy=policy, **options)
    assert isinstance(model.lm_head, FullyShardedDataParallel) == kind.endswith("head")
    return wrapped


def whole_gradients(model: nn.Module, kind: str) -> dict[str, torch.Tensor]:
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.tensor import DTensor

    if kind.startswith("fsdp1"):
        with FullyShardedDataParallel.summon_full_params(model, with_grads=True):
            return {
                name.replace("_fsdp_wrapped_module.", ""): p.grad.clone()
                for name, p in model.named_parameters()
                if p.grad is not None
            }
    found = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert isinstance(gradient, DTensor)
        found[name] = gradient.full_tensor()
    return found


def ranks_take_a_step(rank: int, num_ranks: int, model_folder: str) -> list[Any]:
    found = []
    for kind in KINDS:
        model = shard(tiny(model_folder).train(), kind)
        batch = batches()[rank]
        weight = total_weight([batch])
        for _ in range(2):  # the second pass finds what the first one left
            model.zero_grad()
            loss = packed_loss(model, batch, weight)
            loss.backward()
        packed = whole_gradients(model, kind)
        model.zero_grad()
        fuse_loss(model)  # and as a stock trainer calls it, which averages over ranks as well
        output = model(**batch, num_items_in_batch=weight / num_ranks)
        assert output.logits is None
        output.loss.backward()
        found.append((loss.item(), packed, output.loss.item(), whole_gradients(model, kind)))
    return found


def test_two_ranks(tiny_model_folder: Any, run_ranks: Callable[..., list[Any]]) -> None:
    model = tiny(tiny_model_folder).train()
    weight = total_weight(batches())
    expected = sum(packed_loss(model, batch, weight) for batch in batches())
    expected.backward()
    by_rank = run_ranks(ranks_take_a_step, model_folder=str(tiny_model_folder))
    for kind, mine, other in zip(KINDS, *by_rank, strict=True):
        for value in (0, 2):
            mean = (mine[value] + other[value]) / 2
            assert mean == pytest.approx(expected.item(), rel=1e-5), kind
        for gradients in (mine[1], mine[3], other[1], other[3]):
            assert gradients.keys() == dict(model.named_parameters()).keys()
            for name, parameter in model.named_parameters():
                error = (gradients[name] - parameter.grad).abs().max()
                assert error <= 1e-5 * parameter.grad.abs().max(), (kind, name)
