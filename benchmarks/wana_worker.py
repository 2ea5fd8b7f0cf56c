"""Scores rows with wana in a process of its own; started by ``ifd_rivals.Wana``.

Reads a line of JSON ``[[instruction, response], ...]``, answers with a line
``[cpu_seconds, wall_seconds]``; the model is loaded before the first.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    from wana.adapters.logprob.bundled import BundledLogProbProvider
    from wana.adapters.scoring.ifd import IFDScorer
    from wana.domain.example import Example, Message, Role

    scorer = IFDScorer(BundledLogProbProvider(threads=int(sys.argv[1])))
    for line in sys.stdin:
        examples = [
            Example(str(row), (Message(Role.USER, instruction), Message(Role.ASSISTANT, response)))
            for row, (instruction, response) in enumerate(json.loads(line))
        ]
        wall, cpu = time.perf_counter(), time.process_time()
        for example in examples:
            scorer.score(example)
        taken = time.process_time() - cpu, time.perf_counter() - wall
        print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    main()
