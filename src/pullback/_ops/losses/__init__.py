"""Losses, each with its gradient and its Hessian product."""
