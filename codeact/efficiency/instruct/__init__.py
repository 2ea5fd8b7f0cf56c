"""Training records: the chosen answers, their unoptimised twin, preference pairs."""
