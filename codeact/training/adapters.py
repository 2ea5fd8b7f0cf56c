"""Low-rank adapters in a model: LoRA, and QLoRA over 4-bit weights."""

from __future__ import annotations

import importlib.util
import warnings
from typing import TYPE_CHECKING, Any

import torch

from codeact.errors import InputError
from codeact.training.config import TrainConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ALL_LINEAR = "all-linear"


def with_adapter(model: PreTrainedModel, config: TrainConfig) -> Any:
    """The model as ``config.method`` trains it: itself, or inside a ``PeftModel``.

    LoRA (arXiv:2106.09685) adds ``(alpha / rank) * B A x`` to the output of each target layer and
    freezes all else; A begins at random, from ``config.seed``, and B at 0, so that nothing has
    changed. The updates are float32 whatever the weights are. QLoRA (arXiv:2305.14314) is that over
    4-bit weights, as ``load_model(quantization="nf4")`` loads them. The projection to logits gets
    no adapter: the loss without logits would leave it out.

    ``model`` holds the layers of the adapter from here on, as one from ``load_model(adapter=)``.

    Raises:
        InputError: PEFT is not installed, a target is no layer of the model or its output
            projection, the model is quantised and is not to be or the other way round, or it holds
            an adapter already.
    """
    is_quantized = getattr(model, "quantization_method", None) is not None
    if is_quantized != (config.method == "qlora"):
        raise InputError(
            f"method = {config.method} trains "
            + ("weights as they are, got 4-bit ones" if is_quantized else "over 4-bit weights: ")
            + ("" if is_quantized else 'load the model with quantization="nf4"')
        )
    if config.method == "full":
        return model
    check_method_installed(config.method)
    from peft import LoraConfig, get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise InputError("the model holds an adapter already: merge it first")
    targets: Any = config.target_names
    if targets != (_ALL_LINEAR,):
        _refuse_unknown(model, config)
        _refuse_head(model, config)
    options = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=_ALL_LINEAR if targets == (_ALL_LINEAR,) else list(targets),
        task_type="CAUSAL_LM",
    )
    if config.gradient_checkpointing:
        # Frozen embeddings give the first layer an input without a gradient.
        model.enable_input_require_grads()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Nothing of the caller's is drawn from; and PEFT warns of tied embeddings it leaves alone.
        torch.manual_seed(config.seed)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"peft\.")
        try:
            return get_peft_model(model, options)
        except ValueError as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"lora_targets = {', '.join(config.target_names)}: {reason}"
            ) from error


def check_method_installed(method: str) -> None:
    """Raise InputError, with the command that installs it, where a method's package is missing."""
    needed = {"lora": ("peft",), "qlora": ("peft", "bitsandbytes")}.get(method, ())
    extra = "train" if method == "lora" else "quantized"
    for package in needed:
        if importlib.util.find_spec(package) is None:
            raise InputError(f"method = {method} needs {package}: pip install 'codeact[{extra}]'")


def _refuse_unknown(model: PreTrainedModel, config: TrainConfig) -> None:
    """PEFT passes over a name that no layer has as long as another one has a layer."""
    names = [name for name, _ in model.named_modules()]
    for target in config.target_names:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise InputError(f"lora_targets names {target}, which is no layer of the model")


def _refuse_head(model: PreTrainedModel, config: TrainConfig) -> None:
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if module is head and name.rpartition(".")[2] in config.target_names:
            raise InputError(
                f"lora_targets must leave out {name}: the loss is computed without logits, which "
                "would miss an adapter on the output projection"
            )
