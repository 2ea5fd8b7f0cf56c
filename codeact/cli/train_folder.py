"""The work folder of a training: what the run is told, and whether the same command goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from codeact.errors import InputError
from codeact.files import read_json, write_json

_SETTINGS = "settings.json"
_MODEL = "model"


class TrainFolder:
    """``F.training`` beside the output F: checkpoints, settings, then the whole model.

    Every rank has one; only the first rank writes. F appears by one rename, and the work folder
    goes with it; a run that ends before its first checkpoint leaves neither.

    Args:
        output: F, which does not exist or is empty.
        is_first: whether this is the first rank.
    """

    def __init__(self, output: Path, *, is_first: bool) -> None:
        self.output = output.resolve()  # no folder can be renamed onto a link
        self.path = self.output.with_name(f"{self.output.name}.training")
        self.model = self.path / _MODEL
        self._is_first = is_first
        self._is_trained = False

    def begin(self, settings: Mapping[str, Any], *, resume: bool) -> None:
        """Make the folder, or find that of the same command; all ranks call this.

        Raises:
            InputError: the run in it was told something else.
        """
        on_first_rank(lambda: self._begin(settings, resume=resume), is_first=self._is_first)

    def _begin(self, settings: Mapping[str, Any], *, resume: bool) -> None:
        if not resume:
            shutil.rmtree(self.path, ignore_errors=True)
        # Half a model, where the end of a run was interrupted: it is written again.
        shutil.rmtree(self.model, ignore_errors=True)
        path = self.path / _SETTINGS
        if path.is_file():
            saved = read_json(path)
            for name, now in settings.items():
                if saved.get(name) != now:
                    raise InputError(
                        f"{self.path} holds a run with {name} = {saved.get(name)}, this command "
                        f"has {now}: --no-resume starts anew"
                    )
        write_json(path, dict(settings))

    def finish(self) -> None:
        """Give the model, and what was written beside it, the name of the output.

        Raises:
            InputError: something else has that name by now; the model stays where it is.
        """
        if not self._is_first:
            return
        self._is_trained = True
        try:
            os.replace(self.model, self.output)
        except OSError as error:
            raise InputError(
                f"--output = {self.output} cannot be written, {error.strerror}: the trained model "
                f"is in {self.model}"
            ) from error
        shutil.rmtree(self.path, ignore_errors=True)

    def leave(self) -> None:
        """Remove the folder if there is nothing in it to go on from."""
        if not self._is_first or self._is_trained or not self.path.is_dir():
            return
        if not any(path.name not in (_SETTINGS, _MODEL) for path in self.path.iterdir()):
            shutil.rmtree(self.path, ignore_errors=True)


def on_first_rank(function: Callable[[], None], *, is_first: bool) -> None:
    """Call it on the first rank; all wait for its end, and raise the InputError that it raises."""
    import torch.distributed as dist

    error: list[Any] = [None]
    if is_first:
        try:
            function()
        except InputError as found:
            error = [found]
    if dist.is_available() and dist.is_initialized():
        dist.broadcast_object_list(error, src=0)
    if error[0] is not None:
        raise error[0]
