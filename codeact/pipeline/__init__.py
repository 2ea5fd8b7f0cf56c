"""The main job end to end: a recipe, its run folder, and the report on what happened."""

from codeact.pipeline.recipe import Recipe, load_recipe
from codeact.pipeline.report import write_report
from codeact.pipeline.run_folder import RunFolder

__all__ = ["Recipe", "RunFolder", "load_recipe", "write_report"]
