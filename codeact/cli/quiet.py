"""Keep the bars and notices of other libraries off the terminal; ours say what is needed."""

from __future__ import annotations

import os
import warnings


def quiet_libraries() -> None:
    """Silence the notices of the Hugging Face libraries and PyTorch, importing none of them.

    Call it before they are imported: each reads its environment variable once. What the user has
    set stays.
    """
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Deprecations inside other people's code are for them, not for whoever types a command.
    for module in ("transformers", "accelerate", "datasets", "torch", "huggingface_hub"):
        for category in (FutureWarning, DeprecationWarning, UserWarning):
            warnings.filterwarnings("ignore", category=category, module=rf"{module}(\.|$)")


def quiet_models() -> None:
    """The same, and no bar while transformers reads weights; downloads keep theirs."""
    quiet_libraries()
    import transformers

    if os.environ["TRANSFORMERS_VERBOSITY"] == "error":  # it may have been imported before
        transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
