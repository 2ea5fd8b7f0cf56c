"""What is measured: candidate solutions, and marks of unfit ones."""
