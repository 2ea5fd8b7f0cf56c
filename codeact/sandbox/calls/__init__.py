"""Calls of a Python function: values in, the driver inside, answers out, the comparison."""
