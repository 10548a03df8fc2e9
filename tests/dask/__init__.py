"""Tests: dask."""
