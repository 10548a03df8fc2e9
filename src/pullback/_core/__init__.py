"""Shared by every operation: validation, sums, stable exponentials, types."""
