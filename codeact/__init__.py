"""Which code-instruction data is worth training on, packed without waste, judged honestly."""

__version__ = "0.1.0"
