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
from codeact.data.overlap import Overlap, find_overlap, refuse_overlap
from codeact.data.pairs import Pair, TokenizedPairs, load_pairs, pairs_hash, tokenize_pairs
from codeact.data.tokenize import TokenizedExample, TokenizedExamples, tokenize_examples
from codeact.data.validation import load_validation, load_validations

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
    "Overlap",
    "Pair",
    "TokenizedExample",
    "TokenizedExamples",
    "TokenizedPairs",
    "decontaminate",
    "find_benchmarks",
    "find_duplicates",
    "find_overlap",
    "harvest_functions",
    "load_examples",
    "load_pairs",
    "load_validation",
    "load_validations",
    "pairs_hash",
    "read_benchmark",
    "refuse_overlap",
    "tokenize_examples",
    "tokenize_pairs",
]
