"""Records and prompts: loading, tokenising, harvesting, decontaminating and deduplicating."""

from codeact.data.decontaminate import (
    Benchmark,
    BenchmarkTask,
    Decontamination,
    Hit,
    decontaminate,
    find_benchmarks,
    read_benchmark,
)
from codeact.data.duplicates import Duplicate, Duplicates, find_duplicates
from codeact.data.example import Example, Examples, Message
from codeact.data.harvest import harvest_functions
from codeact.data.load import load_examples
from codeact.data.tokenize import TokenizedExample, TokenizedExamples, tokenize_examples

__all__ = [
    "Benchmark",
    "BenchmarkTask",
    "Decontamination",
    "Duplicate",
    "Duplicates",
    "Example",
    "Examples",
    "Hit",
    "Message",
    "TokenizedExample",
    "TokenizedExamples",
    "decontaminate",
    "find_benchmarks",
    "find_duplicates",
    "harvest_functions",
    "load_examples",
    "read_benchmark",
    "tokenize_examples",
]
