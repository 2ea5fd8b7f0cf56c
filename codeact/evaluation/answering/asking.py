"""A model, how it is asked, and its answers as they go into the folder of an evaluation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeact.errors import InputError
from codeact.evaluation.answering.prompts import STYLES, PromptStyle, choose_style
from codeact.evaluation.evaluation_folder import folder_fingerprint, weights_fingerprint
from codeact.evaluation.samples import Sample, SampleFile
from codeact.progress import OnProgress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from codeact.evaluation.evaluation_folder import EvaluationFolder
    from codeact.evaluation.judging.problems import Problem
    from codeact.models import LoadedModel

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asking:
    """Which model is asked how; the arguments of :func:`codeact.evaluation.evaluate`."""

    model: str | Path | LoadedModel | None
    style: str
    response_prefix: bool
    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int
    adapter: str | Path | None
    device: str
    dtype: str

    def check(self, num_samples: int | None) -> None:
        """Refuse what can be refused without reading weights.

        Raises:
            InputError: One of the arguments cannot be used.
        """
        from codeact.models import Sampling

        Sampling(self.temperature, self.top_p, self.max_new_tokens)
        if self.style not in STYLES:
            raise InputError(f"style must be one of {', '.join(STYLES)}, got {self.style!r}")
        if num_samples is not None and num_samples < 1:
            raise InputError(f"num_samples must be at least 1, got {num_samples}")
        if self.temperature == 0 and (num_samples or 1) > 1:
            raise InputError(
                f"num_samples must be 1 at temperature 0, where all are the same, got {num_samples}"
            )
        if self.adapter is not None and not isinstance(self.model, str | Path):
            raise InputError("adapter needs a model by its folder or id, got a loaded one")

    def prepared(self) -> PreparedModel:
        """The tokenizer and the form of the prompts; weights are read at the first answer."""
        from codeact.models import load_tokenizer, resolve_device, resolve_dtype

        loaded = self.model if isinstance(self.model, tuple) else None
        if loaded is not None:
            tokenizer, trained_here = loaded.tokenizer, False
            identity = weights_fingerprint(loaded.model)
            dtype = str(loaded.model.dtype).removeprefix("torch.")
        else:
            tokenizer = load_tokenizer(str(self.model))
            folders = [Path(str(name)) for name in (self.adapter, self.model) if name is not None]
            trained_here = any((folder / "training.json").is_file() for folder in folders)
            identity = folder_fingerprint(str(self.model))
            dtype = str(resolve_dtype(self.dtype, resolve_device(self.device)))
        style = choose_style(
            self.style, tokenizer, trained_here=trained_here, response_prefix=self.response_prefix
        )
        if style.name != "chat" and self.style in ("auto", "chat"):
            _LOG.warning(
                "style %s: the model has no chat template, so its prompts are in the form %r",
                self.style, style.name,
            )  # fmt: skip
        return PreparedModel(self, tokenizer, style, identity, dtype.removeprefix("torch."))


@dataclass(frozen=True)
class PreparedModel:
    """A model that is ready to be asked.

    Attributes:
        asking: Its arguments.
        tokenizer: Its tokenizer.
        style: The form of its prompts.
        identity: Hash of its files or weights, or its hub id.
        dtype: Of its weights.
    """

    asking: Asking
    tokenizer: PreTrainedTokenizerBase
    style: PromptStyle
    identity: str
    dtype: str

    def load(self) -> LoadedModel:
        """The weights."""
        from codeact.models import load_model

        model, adapter = self.asking.model, self.asking.adapter
        if isinstance(model, tuple):
            return model
        asking = self.asking
        return load_model(str(model), dtype=asking.dtype, device=asking.device, adapter=adapter)


def settings_of(model: PreparedModel) -> dict[str, Any]:
    """Everything that an answer hangs on, as it stands in ``evaluation.json``."""
    asking = model.asking
    named = asking.model if isinstance(asking.model, str | Path) else "a loaded model"
    adapter = asking.adapter
    return {
        "model": str(named),
        "model_hash": model.identity,
        "adapter": None if adapter is None else str(adapter),
        "adapter_hash": None if adapter is None else folder_fingerprint(adapter),
        "dtype": model.dtype,
        "style": model.style.name,
        "style_asked": model.style.asked,
        "response_prefix": model.style.response_prefix,
        "temperature": asking.temperature,
        "top_p": asking.top_p,
        "max_new_tokens": asking.max_new_tokens,
        "seed": asking.seed,
    }


def answered(
    model: PreparedModel,
    folder: EvaluationFolder,
    problems: Sequence[Problem],
    num_samples: int,
    on_progress: OnProgress,
) -> dict[tuple[str, str, int], Sample]:
    """All samples: those of an earlier process, and the others from the model."""
    names = [
        (problem.benchmark, problem.task_id, number)
        for problem in problems
        for number in range(num_samples)
    ]
    file = SampleFile(folder.samples, names)
    try:
        if not file.samples:  # verdicts on answers that are gone say nothing of new ones
            folder.drop_verdicts()
        missing = [name for name in names if name not in file.samples]
        if missing:
            _ask(model, file, problems, missing, len(names), on_progress)
    finally:
        file.close()
    return {name: file.samples[name] for name in names}


def _ask(
    model: PreparedModel,
    file: SampleFile,
    problems: Sequence[Problem],
    missing: Sequence[tuple[str, str, int]],
    total: int,
    on_progress: OnProgress,
) -> None:
    from codeact.evaluation.answering.generation import generate_samples
    from codeact.models import Sampling

    wanted: dict[str, list[int]] = {}
    for _, task_id, number in missing:
        wanted.setdefault(task_id, []).append(number)
    asking = model.asking
    sampling = Sampling(asking.temperature, asking.top_p, asking.max_new_tokens)
    # Weights leave with this frame: the tests need the memory.
    answers = generate_samples(
        model.load(), problems, wanted, model.style, sampling, seed=asking.seed
    )
    for sample in answers:
        file.add(sample)
        on_progress(len(file.samples), total)
