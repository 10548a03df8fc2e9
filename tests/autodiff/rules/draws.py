"""Random arrays on which differences are accurate: away from kinks, poles and branch cuts."""

from typing import Any

import numpy as np


class Draws:
    """Draws arrays from a stream of its own, so that one table of cases does not change another."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def normal(self, *shape: int) -> Any:
        return self._rng.standard_normal(shape)

    def positive(self, *shape: int) -> Any:
        """Numbers between 1/2 and 2, no two of them close to each other."""
        count = int(np.prod(shape))
        return self._rng.permutation(np.linspace(0.5, 2, count + 2)[1:-1]).reshape(shape)

    def apart(self, *shape: int) -> Any:
        """Numbers between -2 and 2, no two of them close to each other, and none to an integer."""
        count = int(np.prod(shape))
        x = np.linspace(-2, 2, 2 * count + 2)[1:-1][self._rng.permutation(2 * count)[:count]]
        return np.where(np.abs(x - np.round(x)) < 0.02, x + 0.04, x).reshape(shape)

    def unit(self, *shape: int) -> Any:
        """Numbers between -0.6 and 0.6."""
        return self._rng.uniform(-0.6, 0.6, shape)

    def away(self, *shape: int) -> Any:
        """Numbers of both signs, as far from 0 as `positive` ones."""
        return self.positive(*shape) * np.where(self.normal(*shape) > 0, 1, -1)

    def cplx(self, *shape: int) -> Any:
        """Complex numbers, away from both axes."""
        return self.away(*shape) + 1j * self.away(*shape)
