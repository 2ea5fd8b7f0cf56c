"""Attention over packed sequences: what each backend can, which is chosen, and its call."""
