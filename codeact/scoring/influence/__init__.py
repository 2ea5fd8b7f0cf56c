"""Influence of training rows on the validation loss of coding tasks (DIScore, arXiv:2604.07769)."""
