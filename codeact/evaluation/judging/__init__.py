"""Whether a program is right: our own check, and EvalPlus beside it."""
