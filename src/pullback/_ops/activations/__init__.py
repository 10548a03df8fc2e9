"""Activations, each forward beside its backward."""
