"""Run a function on several processes that talk over gloo, and bring back what each returns.

The processes are forked from a clean server that has imported the heavy modules once: a fresh
interpreter would spend ten seconds on imports, and a fork of the test process may not train.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT = 120.0
# What is not installed is passed over.
PRELOAD = ["codeact.training", "accelerate", "lightning.pytorch", "trl.trainer.sft_trainer"]


def run_ranks(
    function: Callable[..., Any], num_ranks: int, folder: Path, **kwargs: Any
) -> list[Any]:
    """``function(rank, num_ranks, **kwargs)`` of a test file, by rank.

    The function is found by its file and name, so it needs no importable module.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "source": function.__code__.co_filename,
        "name": function.__name__,
        "num_ranks": num_ranks,
        "folder": str(folder),
        "kwargs": kwargs,
    }
    processes = [
        context.Process(
            target=runpy.run_path,
            args=(__file__,),
            kwargs={"init_globals": {"OPTIONS": {**options, "rank": rank}}, "run_name": "rank"},
        )
        for rank in range(num_ranks)
    ]
    for process in processes:
        process.start()
    _wait(processes)
    errors = [path.read_text() for path in sorted(folder.glob("error-*.txt"))]
    assert not errors, "\n".join(errors)
    assert all(process.exitcode == 0 for process in processes), [p.exitcode for p in processes]
    import torch

    paths = [folder / f"result-{rank}.pt" for rank in range(num_ranks)]
    return [torch.load(path, weights_only=False) for path in paths]


def _wait(processes: list[Any]) -> None:
    """Until all are done; where one fails, the others would wait for it for ever."""
    deadline = time.monotonic() + TIMEOUT
    while any(process.is_alive() for process in processes):
        failed = any(process.exitcode not in (None, 0) for process in processes)
        if failed or time.monotonic() > deadline:
            for process in processes:
                process.join(2.0 if failed else 0.0)
                process.kill()
        time.sleep(0.05)


def _rank(
    source: str, name: str, rank: int, num_ranks: int, folder: str, kwargs: dict[str, Any]
) -> None:
    """The body of one process: join the others, call the function, leave its result."""
    import torch
    import torch.distributed as dist

    # What torchrun would set, for the libraries that look there for their rank.
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0",
        "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    sys.path.insert(0, str(Path(__file__).parent))
    torch.set_num_threads(1)
    try:
        # A file instead of a port: no two test runs can take the same one.
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=num_ranks
        )
        result = runpy.run_path(source, run_name=f"{name}-{rank}")[name](rank, num_ranks, **kwargs)
        torch.save(result, f"{folder}/result-{rank}.pt")
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        Path(folder, f"error-{rank}.txt").write_text(f"rank {rank}:\n{traceback.format_exc()}")
        os._exit(1)


if __name__ == "rank":
    _rank(**globals()["OPTIONS"])
