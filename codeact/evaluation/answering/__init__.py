"""How a model is asked, and what program its answer holds."""
