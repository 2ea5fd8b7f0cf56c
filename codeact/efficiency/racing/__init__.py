"""Measuring: correctness, races of the correct answers, their records and journal."""
