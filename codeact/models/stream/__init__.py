"""Losses of many sequences, streamed through a model in full packs."""
