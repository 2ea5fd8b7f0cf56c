"""Accelerate on packs: the loader it prepares, on one rank and two, and resumed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import (
    ACCUMULATION,
    EPOCHS,
    LEARNING_RATE,
    NUM_EXAMPLES,
    Run,
    assert_each_once,
    leaking,
    make_plan,
    make_store,
    parameters_of,
    tiny,
    train_unpacked,
    updates,
    watch,
)
from snippets import snippet

from codeact.packing import BinPlan


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps device and processes of its first object for the whole process."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def run_loop(
    model_folder: Path | str,
    plan: BinPlan,
    *,
    state: dict[str, Any] | None = None,
    parameters: list[torch.Tensor] | None = None,
    stop: int | None = None,
) -> tuple[Run, list[dict[str, Any]]]:
    model = tiny(model_folder).train()
    if parameters is not None:
        with torch.no_grad():
            for ours, saved in zip(model.parameters(), parameters, strict=True):
                ours.copy_(saved)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    steps = snippet("Accelerate").train(
        model, optimizer, make_store(), plan, epochs=EPOCHS, accumulation=ACCUMULATION,
        state=state, cpu=True,
    )  # fmt: skip
    seen, losses, states = watch(model), [], []
    for loss, place in itertools.islice(steps, stop):
        losses.append(loss)
        states.append(place)
    return Run(losses, parameters_of(model), seen), states


def check_resumed(model_folder: Path | str, plan: BinPlan) -> tuple[Run, list[dict[str, Any]]]:
    """Resumes mid-epoch and at the epoch's end; the losses must be those of the whole run."""
    whole, states = run_loop(model_folder, plan)
    for stop in (1, plan.num_updates(ACCUMULATION)):
        first, _ = run_loop(model_folder, plan, stop=stop)
        second, _ = run_loop(
            model_folder, plan, state=states[stop - 1], parameters=first.parameters
        )
        assert first.losses + second.losses == whole.losses
        assert first.seen + second.seen == whole.seen
    return whole, states


def test_one_process(tiny_model_folder: Path) -> None:
    plan = make_plan()
    run, _ = check_resumed(tiny_model_folder, plan)
    run.assert_close(train_unpacked(tiny_model_folder, updates(plan)))
    assert_each_once([run.seen])


def ranks_train(rank: int, num_ranks: int, model_folder: str) -> tuple[Run, list[dict[str, Any]]]:
    return check_resumed(model_folder, make_plan(num_ranks))


def test_two_ranks(tiny_model_folder: Path, run_ranks: Callable[..., list[Any]]) -> None:
    """Two ranks; then one goes on alone with what they left of the first epoch."""
    (mine, states), (other, _) = run_ranks(ranks_train, model_folder=str(tiny_model_folder))
    plan = make_plan(2)
    mean = Run(np.mean([mine.losses, other.losses], axis=0).tolist(), mine.parameters)
    mean.assert_close(train_unpacked(tiny_model_folder, updates(plan)))
    for ours, theirs in zip(mine.parameters, other.parameters, strict=True):
        assert torch.equal(ours, theirs)
    assert_each_once([mine.seen, other.seen])

    alone, _ = run_loop(tiny_model_folder, make_plan(), state=states[0])
    next_epoch = make_plan().num_steps  # which is whole again
    done = [*mine.seen[:ACCUMULATION], *other.seen[:ACCUMULATION]]
    first_epoch = [*done, *alone.seen[:-next_epoch]]
    assert sorted(itertools.chain(*first_epoch)) == list(range(NUM_EXAMPLES))
    assert sorted(itertools.chain(*alone.seen[-next_epoch:])) == list(range(NUM_EXAMPLES))


def test_leaking_model_is_refused(tiny_model_folder: Path) -> None:
    model = leaking(tiny_model_folder)
    optimizer = torch.optim.SGD(model.parameters())
    steps = snippet("Accelerate").train(model, optimizer, make_store(), make_plan(), epochs=1)
    with pytest.raises(RuntimeError, match="not isolated"):
        next(steps)
