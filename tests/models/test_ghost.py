"""Ghost inner products against the gradients themselves, one sequence at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Gemma3TextConfig, PreTrainedModel

from codeact.models import hidden_states, scored_from
from codeact.models.direction import along, parameter_names
from codeact.models.stream import ghost_pairs, ghost_products
from codeact.models.stream.embedding_noise import EmbeddingNoise
from codeact.models.stream.ghost import GhostProducts, ghost_gram, stream_ghost
from codeact.models.stream.pack_pass import ScoredSequence
from codeact.ops.varlen import PackedBatch, pack_sequences

MODELS = ["llama-gqa", "qwen2-bias", "gemma2-softcap", "cohere-logit-scale", "gemma3-scaled"]
# transformers takes norms in float32 whatever the model is: 1e-6 is what float64 leaves of it.
SLACK = 2e-6

Make = Callable[[str], PreTrainedModel]


@pytest.fixture
def make(make_tiny: Callable[..., PreTrainedModel]) -> Make:
    """float64, with norms and biases that are neither ones nor zeros."""

    def build(name: str) -> PreTrainedModel:
        model = _gemma3() if name == "gemma3-scaled" else make_tiny(name)
        generator = torch.Generator().manual_seed(2)
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data.copy_(0.5 + 0.3 * torch.randn(parameter.shape, generator=generator))
        return model.double().eval()

    return build


def _gemma3() -> PreTrainedModel:
    """Scaled embeddings tied to the head, norms of ``1 + w``, of queries and keys too."""
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=6,
        query_pre_attn_scalar=8, initializer_range=0.3, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation="codeact")


def sequences() -> list[ScoredSequence]:
    """Of lengths that differ, with padding tokens inside, one scored nowhere."""
    rng = np.random.default_rng(0)
    made = []
    for num_tokens, first in ((9, 3), (2, 1), (13, 5), (4, 4), (7, 1)):
        ids = rng.integers(3, 97, size=num_tokens).astype(np.int32)
        ids[num_tokens // 2] = 0
        made.append(scored_from(ids, first))
    return made


def directions_of(
    model: PreTrainedModel, number: int, names: Sequence[str] | None = None
) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {
            name: torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
            for name, p in model.named_parameters()
            if names is None or name in names
        }
        for _ in range(number)
    ]


def plain_gradients(
    model: PreTrainedModel, chosen: Sequence[ScoredSequence]
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Losses and gradients by transformers' own attention, loss and autograd."""
    stock: Any = copy.deepcopy(model)
    stock.set_attn_implementation("eager")
    named = dict(stock.named_parameters())
    for parameter in named.values():
        parameter.requires_grad_(True)
    totals, gradients = [], []
    for ids, labels in ((torch.from_numpy(x.astype(np.int64)) for x in s[:2]) for s in chosen):
        logits = stock(ids[None], use_cache=False).logits[0, :-1]
        nll = F.cross_entropy(logits, labels[1:], reduction="sum", ignore_index=-100)
        parts = torch.autograd.grad(nll, list(named.values()), allow_unused=True)
        totals.append(nll.detach())
        gradients.append(
            {
                name: torch.zeros_like(p) if part is None else part
                for (name, p), part in zip(named.items(), parts, strict=True)
            }
        )
    return torch.stack(totals), gradients


def plain_products(
    gradients: Sequence[dict[str, Tensor]], directions: Sequence[dict[str, Tensor]]
) -> np.ndarray:
    return np.array(
        [
            [sum(float((g[n] * v).sum()) for n, v in d.items()) for d in directions]
            for g in gradients
        ]
    )


def ghosts(
    model: PreTrainedModel, directions: Any, windows: Any = None, **options: Any
) -> list[GhostProducts]:
    windows = [sequences()] if windows is None else windows
    packs = stream_ghost(model, windows, directions, **options)
    found = dict(pair for pack in packs for pair in pack)
    return [found[index] for index in range(len(found))]


def worst(found: Any, truth: Any) -> float:
    found, truth = np.asarray(found), np.asarray(truth)
    assert found.shape == truth.shape
    return float(np.abs(found - truth).max() / np.abs(truth).max())


@pytest.mark.parametrize("formed", [True, False], ids=["formed", "by-position"])
@pytest.mark.parametrize("name", MODELS)
def test_products_are_those_of_the_gradients(
    make: Make, name: str, formed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three directions move everything, the fourth what it likes; head blocks of a few columns."""
    monkeypatch.setattr(ghost_products, "_READ", 0 if formed else 1e9)
    monkeypatch.setattr(ghost_products, "_CPU_HEAD_BYTES", 2000)
    model = make(name)
    directions = directions_of(model, 4)
    directions[3] = {k: v for k, v in directions[3].items() if "q_proj" in k or "norm" in k}
    found = ghosts(model, directions, token_budget=25)
    totals, gradients = plain_gradients(model, sequences())
    assert worst([x.loss.total for x in found], totals) <= SLACK
    assert worst([x.products for x in found], plain_products(gradients, directions)) <= SLACK
    assert [x.loss.num_scored for x in found] == [6, 1, 8, 0, 6]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_number_of_directions(make: Make, number: int) -> None:
    model = make("llama-gqa")
    every = directions_of(model, 3)
    three = np.array([x.products for x in ghosts(model, every)])
    found = np.array([x.products for x in ghosts(model, every[:number])])
    np.testing.assert_allclose(found, three[:, :number], rtol=1e-9)


def test_no_direction_gives_losses_alone(make: Make) -> None:
    model = make("llama-gqa")
    found = ghosts(model, [])
    assert worst([x.loss.total for x in found], plain_gradients(model, sequences())[0]) <= SLACK
    assert found[0].products.shape == (0,)


@pytest.mark.parametrize("name", ["llama-gqa", "gemma3-scaled"])
def test_packs_and_threads_change_nothing(make: Make, name: str) -> None:
    model = make(name)
    directions = directions_of(model, 2)
    alone = [ghosts(model, directions, [[sequence]])[0].products for sequence in sequences()]
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        split = ghosts(model, directions, [sequences()[:2], [], sequences()[2:]], token_budget=14)
    finally:
        torch.set_num_threads(before)
    assert worst([x.products for x in split], alone) <= 1e-9


@pytest.mark.parametrize("formed", [1 << 30, 0], ids=["formed", "by-pairs"])
@pytest.mark.parametrize("name", MODELS)
def test_gram_is_that_of_the_gradients(
    make: Make, name: str, formed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ghost_pairs, "_FORMED_BYTES", formed)
    monkeypatch.setattr(ghost_products, "_CPU_HEAD_BYTES", 2000)
    model = make(name)
    names = [n for n, _ in model.named_parameters()]
    directions = directions_of(model, 2)
    found = ghost_gram(model, packed(sequences()), names, directions)
    totals, gradients = plain_gradients(model, sequences())
    assert worst(found.totals, totals) <= SLACK
    assert worst(found.products, plain_products(gradients, directions)) <= SLACK
    assert worst(found.gram, plain_products(gradients, gradients)) <= SLACK


def packed(chosen: Sequence[ScoredSequence]) -> PackedBatch:
    return pack_sequences([s.input_ids for s in chosen], [s.labels for s in chosen])


@pytest.mark.parametrize("part", ["embed_tokens", "norm", "k_proj.bias", "mlp.up_proj"])
def test_gram_of_some_parameters_beside_a_direction_of_others(make: Make, part: str) -> None:
    model = make("qwen2-bias")
    names = [n for n, _ in model.named_parameters() if part in n]
    assert names
    directions = directions_of(model, 1, ["model.layers.1.self_attn.v_proj.weight"])
    found = ghost_gram(model, packed(sequences()), names, directions)
    _, gradients = plain_gradients(model, sequences())
    chosen = [{n: g[n] for n in names} for g in gradients]
    assert worst(found.gram, plain_products(chosen, chosen)) <= SLACK
    assert worst(found.products, plain_products(gradients, directions)) <= SLACK


@pytest.mark.parametrize("formed", [1 << 30, 0], ids=["formed", "by-pairs"])
def test_a_layer_used_twice_counts_twice(
    make: Make, formed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ghost_pairs, "_FORMED_BYTES", formed)
    model: Any = make("qwen2-bias")
    model.model.layers[1] = model.model.layers[0]
    names = [n for n, _ in model.named_parameters() if "layers" in n]
    found = ghost_gram(model, packed(sequences()), names, directions_of(model, 2, names))
    _, gradients = plain_gradients(model, sequences())
    chosen = [{n: g[n] for n in names} for g in gradients]
    truth = plain_products(gradients, directions_of(model, 2, names))
    assert worst(found.products, truth) <= SLACK
    assert worst(found.gram, plain_products(chosen, chosen)) <= SLACK


def test_a_head_of_its_own_with_a_bias(make: Make) -> None:
    model: Any = make("llama-gqa")
    model.lm_head = nn.Linear(32, 97, dtype=torch.float64)
    names = ["lm_head.weight", "lm_head.bias"]
    directions = directions_of(model, 3, names)
    found = ghost_gram(model, packed(sequences()), names, directions)
    _, gradients = plain_gradients(model, sequences())
    chosen = [{n: g[n] for n in names} for g in gradients]
    assert worst(found.products, plain_products(gradients, directions)) <= SLACK
    assert worst(found.gram, plain_products(chosen, chosen)) <= SLACK


def test_lora_directions(make: Make) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=3, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(3)
    model = peft.get_peft_model(make("llama-gqa"), config).get_base_model().double().eval()
    names = parameter_names(model, "lora")
    assert len(names) == 8
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    directions = directions_of(model, 3, names)
    found = ghost_gram(model, packed(sequences()), names, directions)
    streamed = ghosts(model, directions)
    _, gradients = plain_gradients(model, sequences())
    chosen = [{n: g[n] for n in names} for g in gradients]
    truth = plain_products(gradients, directions)
    assert worst(found.products, truth) <= SLACK
    assert worst([x.products for x in streamed], truth) <= SLACK
    assert worst(found.gram, plain_products(chosen, chosen)) <= SLACK
    assert {n for n, p in model.named_parameters() if p.requires_grad} == trainable == set(names)


def test_the_backward_pass_ends_at_the_first_layer_that_moves(make: Make) -> None:
    model: Any = make("llama-gqa")
    seen: list[set[bool]] = []  # of each layer, in whatever order threads come by
    for layer in model.model.layers:
        seen.append(set())
        layer.register_forward_hook(lambda *call, of=seen[-1]: of.add(call[-1].requires_grad))
    directions = directions_of(model, 1, parameter_names(model, "last:1"))
    found = ghosts(model, directions)
    assert [True in of for of in seen] == [False, True]
    truth = plain_products(plain_gradients(model, sequences())[1], directions)
    assert worst([x.products for x in found], truth) <= SLACK


class Routed(nn.Module):
    """Gives its layer the tokens in another order, as experts get theirs."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x[0].flip(0)).flip(0)[None]


class Bypassed(nn.Module):
    """Uses the weight of a layer that it never calls."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.inner.weight)


@pytest.mark.parametrize(("wrapper", "words"), [(Routed, "no known place"), (Bypassed, "not met")])
def test_a_use_that_cannot_be_followed_is_an_error(
    make: Make, wrapper: type[Any], words: str
) -> None:
    model: Any = make("llama-gqa")
    mlp = model.model.layers[1].mlp
    mlp.down_proj = wrapper(mlp.down_proj)
    name = "model.layers.1.mlp.down_proj.inner.weight"
    with pytest.raises(RuntimeError, match=rf"{name} .*{words}.*derivative='forward'"):
        ghosts(model, directions_of(model, 1))
    assert_untouched(model)
    others = [n for n, _ in model.named_parameters() if n != name]
    truth = plain_products(plain_gradients(model, sequences())[1], directions_of(model, 1, others))
    found = ghosts(model, directions_of(model, 1, others))
    assert worst([x.products for x in found], truth) <= SLACK


def assert_untouched(model: nn.Module) -> None:
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_the_model_is_left_as_it_was(make: Make) -> None:
    model = make("llama-gqa")
    opened = stream_ghost(model, [sequences()], directions_of(model, 1), token_budget=14)
    next(opened)
    opened.close()
    assert_untouched(model)
    ghosts(model, directions_of(model, 1))
    assert_untouched(model)


def test_autocast_is_for_the_decoder_alone(
    make_tiny: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head in float32 stays there: the products of its logits sum to the loss's derivative."""
    model = make_tiny("llama-gqa")
    names = ("lm_head.weight",)
    directions = directions_of(model, 3, names)
    batch = packed(sequences())
    with torch.autocast("cpu", torch.bfloat16):
        found = ghost_gram(model, batch, names, directions)
        states = hidden_states(model, batch)[batch.rows].float()
    weight = model.lm_head.weight.detach().requires_grad_()
    nll = F.cross_entropy(states.detach() @ weight.t(), batch.targets, reduction="none")
    gradients = [
        {names[0]: torch.autograd.grad(part.sum(), weight, retain_graph=True)[0]}
        for part in nll.split(np.diff(batch.cu_rows).tolist())
    ]
    assert worst(found.products, plain_products(gradients, directions)) <= 1e-5
    assert worst(found.gram, plain_products(gradients, gradients)) <= 1e-5


def test_gradient_checkpointing_changes_nothing(make: Make) -> None:
    model = make("llama-gqa")
    directions = directions_of(model, 2)
    before = [x.products for x in ghosts(model, directions)]
    model.gradient_checkpointing_enable()
    assert worst([x.products for x in ghosts(model, directions)], before) == 0.0


def test_refusals(make: Make) -> None:
    model: Any = make("llama-gqa")
    (direction,) = directions_of(model, 1)
    with pytest.raises(ValueError, match="which the model does not have"):
        ghosts(model, [{"model.nowhere": torch.zeros(1)}])
    with pytest.raises(ValueError, match=r"model.norm.weight must be \(32,\)"):
        ghosts(model, [{"model.norm.weight": torch.zeros(3)}])
    with pytest.raises(ValueError, match="names has nothing"):
        ghost_gram(model, packed(sequences()), ["nothing"])
    noisy = sequences()[0]._replace(noise=EmbeddingNoise(1, 0.5))
    with pytest.raises(ValueError, match="without noise"):
        ghosts(model, [direction], [[noisy]])
    with along(model, direction), pytest.raises(RuntimeError, match="inside of along"):
        ghosts(model, [direction])
    with pytest.raises(ValueError, match="evaluation mode"):
        ghosts(model.train(), [direction])
    model.eval().model.layers[0].compile(backend="eager")
    with pytest.raises(RuntimeError, match="compiled"):
        ghosts(model, [direction])


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["qwen2-bias", "gemma3-scaled"])
@pytest.mark.parametrize(("dtype", "slack"), [(torch.float32, 1e-3), (torch.bfloat16, 0.1)])
def test_on_gpu(make: Make, name: str, dtype: torch.dtype, slack: float) -> None:
    model = make(name)
    directions = directions_of(model, 3)
    names = [n for n, _ in model.named_parameters()]
    truth = ghost_gram(model, packed(sequences()), names, directions)
    model = model.to("cuda", dtype)
    moved = [{n: v.to("cuda", dtype) for n, v in d.items()} for d in directions]
    found = ghosts(model, moved, token_budget=25)
    assert worst([x.products for x in found], truth.products) <= slack
    paired = ghost_gram(model, packed(sequences()).to("cuda"), names, moved)
    assert worst(paired.products, truth.products) <= slack
    assert worst(paired.gram, truth.gram) <= slack
