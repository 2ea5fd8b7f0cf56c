"""Direct preference optimisation on packed pairs (arXiv:2305.18290)."""
