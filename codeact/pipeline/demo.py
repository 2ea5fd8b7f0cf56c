"""What ``codeact demo`` changes in the default recipe."""

from __future__ import annotations


def demo_overrides() -> list[str]:
    """Overrides that make the demo last minutes on two CPU cores, or use a GPU when there is one.

    Rows of at most 256 tokens, so that the CPU sees enough of them; a higher learning rate than
    one would take for a real run, since a few hundred rows are all there is.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    return [
        "name=demo",
        f"data.num_examples={1200 if on_gpu else 128}",
        f"data.num_held_out={256 if on_gpu else 40}",
        "data.max_tokens=256",
        "pack.capacity=1024",
        "train.learning_rate=2e-5",
        "train.accumulation=1",
    ]
