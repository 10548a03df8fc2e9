"""Tests: the rules."""
