"""Two models on the same tasks or rows: tests, intervals, sizes of effects, and words."""
