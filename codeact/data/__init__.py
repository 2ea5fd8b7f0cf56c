"""Records and prompts: loading, tokenising, harvesting and decontaminating examples."""

from codeact.data.decontaminate import (
    Benchmark,
    BenchmarkTask,
    Decontamination,
    Hit,
    decontaminate,
    find_benchmarks,
)
from codeact.data.example import Example, Examples, Message
from codeact.data.harvest import harvest_functions
from codeact.data.load import load_examples
from codeact.data.tokenize import TokenizedExample, TokenizedExamples, tokenize_examples

__all__ = [
    "Benchmark",
    "BenchmarkTask",
    "Decontamination",
    "Example",
    "Examples",
    "Hit",
    "Message",
    "TokenizedExample",
    "TokenizedExamples",
    "decontaminate",
    "find_benchmarks",
    "harvest_functions",
    "load_examples",
    "tokenize_examples",
]
