"""`pullback gradient`: the gradient of a batch in files."""
