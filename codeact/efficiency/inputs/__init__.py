"""What is measured: tasks with tests, candidate solutions, and marks of unfit ones."""
