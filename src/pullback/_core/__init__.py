"""What every operation needs: validation, sums, stable exponentials, types."""
