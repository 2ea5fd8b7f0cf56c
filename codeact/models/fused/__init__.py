"""A model's training loss without logits."""
