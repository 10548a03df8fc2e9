"""Tests of `pullback gradient`, on real files, processes and clusters."""
