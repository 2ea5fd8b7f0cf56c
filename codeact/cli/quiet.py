"""Keep the bars and notices of other libraries off the terminal; ours say what is needed."""

from __future__ import annotations

import os
import warnings


def quiet_libraries() -> None:
    """Silence transformers' and datasets' progress bars and their notices below errors.

    Call it before either is imported: datasets reads its variable once, and is then not imported
    where nothing else needs it (it takes two seconds).
    """
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    # Deprecations inside other people's code are for them, not for whoever types a command.
    for module in ("transformers", "accelerate", "datasets", "torch", "huggingface_hub"):
        for category in (FutureWarning, DeprecationWarning, UserWarning):
            warnings.filterwarnings("ignore", category=category, module=rf"{module}(\.|$)")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
