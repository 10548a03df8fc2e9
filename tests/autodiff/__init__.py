"""Tests: autodiff."""
