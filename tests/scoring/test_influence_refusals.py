"""What influence refuses: derivatives that are wrong or not to be had, options, validation sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from influence_cases import POOL, TASKS
from torch import Tensor

from codeact.data import Examples, load_examples
from codeact.errors import InputError
from codeact.models import load_model, scored_from
from codeact.models.direction import is_moving
from codeact.scoring import Scorer
from codeact.scoring.influence import canary, follow
from codeact.scoring.influence.canary import compare


@pytest.fixture(scope="module")
def pool() -> Examples:
    return load_examples(POOL)


@pytest.fixture(scope="module")
def tasks() -> dict[str, Examples]:
    return {name: load_examples(rows) for name, rows in TASKS.items()}


@pytest.fixture(scope="module")
def scorer(tiny_model_folder: Path) -> Scorer:
    return Scorer(load_model(tiny_model_folder, device="cpu", dtype="float32"))


def test_a_wrong_tangent_stops_at_the_canary(
    scorer: Scorer, tasks: dict[str, Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = scorer.model.get_decoder()
    norm = decoder.norm.forward

    def drops_the_tangent(states: Tensor) -> Tensor:
        """As an operator without a forward-mode rule does: the value passes, and the gradient."""
        return norm(torch.from_numpy(states.detach().numpy()) if is_moving() else states)

    monkeypatch.setattr(decoder.norm, "forward", drops_the_tangent)
    with pytest.raises(InputError, match="differs by"):
        scorer.influence_probe({"sums": tasks["sums"]}, derivative="forward")


def test_the_check_runs_beside_a_kernel_of_half_precision(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passes the model in float32, which the kernel that the user named may not take."""
    model = load_model(tiny_model_folder, device="cpu", dtype="float32").model
    model.set_attn_implementation("codeact_per_sequence")
    seen = set()
    attend = model.get_decoder().forward

    def watch(*args: Any, **kwargs: Any) -> Any:
        seen.add((model.config._attn_implementation, is_moving()))
        return attend(*args, **kwargs)

    monkeypatch.setattr(model.get_decoder(), "forward", watch)
    canary._summed_losses(
        model, {"model.norm.weight": torch.ones(32)}, 1e-3, [scored_from(np.arange(3, 9), 1)]
    )
    assert seen == {("codeact", False)}
    assert model.config._attn_implementation == "codeact_per_sequence"


def test_a_model_without_forward_mode_says_so(
    scorer: Scorer, pool: Examples, tasks: dict[str, Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Tensor:
        raise ValueError("varlen_attention_jvp takes values as wide as keys")

    module = sys.modules["codeact.ops.varlen_attention_jvp"]  # the function has the same name
    monkeypatch.setattr(module, "forward_mode_attention", refuse)
    one = {"sums": tasks["sums"]}
    with pytest.raises(InputError, match=r"LlamaForCausalLM has no forward mode on cpu: .* ghost"):
        scorer.influence_probe(one, derivative="forward")
    assert scorer.influence_probe(one).derivative == "ghost"


def test_a_use_of_parameters_that_ghosts_do_not_follow(
    scorer: Scorer, tasks: dict[str, Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of experts, or of the layers that PEFT keeps beside those it trains."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("model.x was not met in a pass; use derivative='forward'")

    monkeypatch.setattr(follow, "stream_ghost", refuse)
    with pytest.raises(InputError, match=r"LlamaForCausalLM has no ghost products: model\.x .*"):
        scorer.influence_probe(tasks, derivative="ghost")
    probe = scorer.influence_probe(tasks)
    assert probe.derivative == "forward"
    assert len(probe.canaries) == len(tasks) == 3


def test_nothing_expected_and_nothing_found_is_no_agreement() -> None:
    with pytest.raises(InputError, match="is zero"):
        compare(np.zeros(2), np.zeros(2), 1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"derivative": "backward"}, "derivative must be one of"),
        ({"style": "chat"}, "style must be"),
        ({"parameters": "some"}, "parameters must be"),
    ],
)
def test_options_without_a_meaning(
    change: dict[str, Any], message: str, scorer: Scorer, tasks: dict[str, Examples]
) -> None:
    with pytest.raises(InputError, match=message):
        scorer.influence_probe(tasks, **change)


def test_bad_validation_sets(scorer: Scorer, pool: Examples, tasks: dict[str, Examples]) -> None:
    silent = load_examples([{"instruction": "Say nothing.", "response": ""}])
    with pytest.raises(InputError, match="'mute' must hold a problem with a solution"):
        scorer.influence_probe({"mute": silent})
    with pytest.raises(InputError, match="at least one task"):
        scorer.influence_probe({})
    with pytest.raises(InputError, match="without '@'"):
        scorer.influence_probe({"a@b": tasks["sums"]})
    with pytest.raises(InputError, match="overlap"):
        scorer.influence(pool, {"copy": pool[:2]})
    assert scorer.influence(pool, {"copy": pool[:2]}, allow_overlap=True).num_rows == len(pool)


def test_half_precision_has_no_differences(
    tiny_model_folder: Path, tasks: dict[str, Examples]
) -> None:
    scorer = Scorer(load_model(tiny_model_folder, device="cpu", dtype="bfloat16"))
    with pytest.raises(InputError, match="float32, got bfloat16"):
        scorer.influence_probe(tasks, derivative="difference")


def test_a_derivative_that_is_not_finite_names_its_row(
    scorer: Scorer, pool: Examples, tasks: dict[str, Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = scorer.influence_probe({"sums": tasks["sums"]})
    probe._lengths = [float("inf")]
    with pytest.raises(InputError, match=r"8 rows with a finite loss is not finite \(r0, r1"):
        scorer.influence_along(probe, pool)
