"""searching_sorting."""
