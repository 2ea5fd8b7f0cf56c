"""Candidate solutions from models: a recipe, prompts, answers here or from a server."""
