"""Influence of the rows of each step while training, and the choice of rows by it."""
