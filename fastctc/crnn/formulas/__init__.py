"""Formulas: what they are, how they are drawn, and the models that read them."""
