"""The closed forms, one subject a module: each forward beside its backward."""
