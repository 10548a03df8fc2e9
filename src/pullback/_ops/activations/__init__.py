"""Activations, each forward next to its backward."""
