"""Keep the 40 % of a training set that CDAS chooses, and fine-tune on them.

    python examples/select_and_tune.py --data data.jsonl --model MODEL --output tuned

Without options: SmolLM2-135M-Instruct on functions of the packages installed here.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from codeact.data import Examples, harvest_functions, load_examples, tokenize_examples
from codeact.models import demo_embedder, demo_model, load_model
from codeact.packing import plan_bins
from codeact.scoring import Embedder, Scorer
from codeact.selection import CDAS
from codeact.training import TrainConfig, TrainResult, fine_tune


def select(examples: Examples, model: str | Path, encoder: str | Path) -> Examples:
    """The rows worth training on, in their order."""
    scores = Scorer(model).ifd(examples)
    embeddings = Embedder(encoder).embed(examples)
    cdas = CDAS(budget=0.4, num_clusters=10, seed=42)
    cdas.fit(embeddings, scores["ifd_ppl"], ids=examples.ids)
    return examples.select(sorted(cdas.selected_))


def tune(subset: Examples, model: str | Path, output: Path) -> TrainResult:
    """Fine-tune a fresh copy of the model for one epoch and save it in ``output``."""
    loaded = load_model(model, dtype="float32")  # on a GPU the steps run in bfloat16
    tokenized = tokenize_examples(subset, loaded.tokenizer, max_length=1024)
    tokenized = tokenized.select(tokenized.num_response_tokens.nonzero()[0])
    plan = plan_bins(tokenized.seqlens, capacity=1024)
    # Few rows are few steps, and a warm-up would take the first of them at a rate of 0.
    config = TrainConfig(epochs=1, learning_rate=2e-5, warmup_ratio=0.0, accumulation=1)
    with tempfile.TemporaryDirectory() as scratch:
        result = fine_tune(loaded.model, tokenized, plan, config, folder=Path(scratch))
    loaded.model.save_pretrained(output)
    loaded.tokenizer.save_pretrained(output)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="file or Hugging Face id; 40 harvested functions if none")
    parser.add_argument("--model", help="folder or Hugging Face id; SmolLM2-135M if none")
    parser.add_argument("--encoder", help="folder or Hugging Face id; MiniLM if none")
    parser.add_argument("--output", type=Path, default=Path("runs/select-and-tune"))
    options = parser.parse_args(argv)

    examples = load_examples(options.data) if options.data else harvest_functions(limit=40)
    model = options.model or demo_model()
    subset = select(examples, model, options.encoder or demo_embedder())
    options.output.mkdir(parents=True, exist_ok=True)
    subset.write_jsonl(options.output / "subset.jsonl")
    result = tune(subset, model, options.output / "model")
    first, last = result.steps[0].loss, result.steps[-1].loss
    print(f"kept {len(subset)} of {len(examples)} rows; {len(result.steps)} steps")
    print(f"loss {first:.3f} to {last:.3f}; {result.tokens_per_second:.0f} tokens/s")


if __name__ == "__main__":
    main()
