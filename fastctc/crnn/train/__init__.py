"""Training: a recipe, a run, and all that a run needs."""
