"""Quantities of single examples' gradients."""
