"""Pictures of fits by gradients: a likelihood with its standard error, a restored signal."""

import numpy as np
from array_api_compat import array_namespace
from matplotlib.figure import Figure
from pullback import hessian, value_and_grad
from scipy.optimize import minimize

from drawing import ACCENT, INK


def threshold(figure: Figure) -> None:
    """Draw the log-likelihood of the threshold of a log-normal sample, and its parabola."""
    x = 3.0 + np.random.default_rng(0).lognormal(0.5, 0.6, 400)

    def loss(shift: np.ndarray) -> np.ndarray:
        xp = array_namespace(shift)
        logs = xp.log(x - shift[0])
        return xp.sum(logs) + len(x) / 2 * xp.log(xp.var(logs))

    bounds = [(0.0, x.min() - 0.01)]
    found = minimize(value_and_grad(loss), [2.0], jac=True, bounds=bounds, tol=1e-10)
    curvature = hessian(loss)(found.x)[0, 0]
    error = 1 / np.sqrt(curvature)
    shifts = found.x[0] + error * np.linspace(-3.5, 2.0, 200)
    axes = figure.subplots()
    values = [found.fun - loss(np.asarray([shift])) for shift in shifts]
    axes.plot(shifts, values, color=ACCENT, linewidth=3, label="log-likelihood")
    axes.plot(shifts, -curvature / 2 * (shifts - found.x[0]) ** 2, color=INK, dashes=(5, 3), label="parabola")
    axes.errorbar(found.x[0], 0.4, xerr=2 * error, color=INK, capsize=4, marker="o")
    axes.set(xlabel="threshold", ylabel="below the maximum")
    axes.grid(axis="y")
    figure.legend(loc="outside upper right", ncols=2)


def deconvolution(figure: Figure) -> None:
    """Draw a signal, what was measured of it, and what the fit restores."""
    rng = np.random.default_rng(0)
    truth = np.repeat([0.0, 1.0, 0.3, 0.8, 0.0], 40)
    kernel = np.exp(-0.5 * (np.arange(-20, 21) / 6) ** 2)
    kernel /= kernel.sum()
    size = truth.size + kernel.size - 1
    transfer = np.fft.rfft(kernel, size)

    def blur(x: np.ndarray) -> np.ndarray:
        xp = array_namespace(x)
        return xp.fft.irfft(xp.fft.rfft(x, n=size) * transfer, n=size)[20:220]

    seen = blur(truth) + 0.01 * rng.standard_normal(200)

    def loss(x: np.ndarray) -> np.ndarray:
        xp = array_namespace(x)
        jumps = xp.sqrt((x[1:] - x[:-1]) ** 2 + 1e-6)
        return xp.sum((blur(x) - seen) ** 2) + 2e-3 * xp.sum(jumps)

    options = {"maxiter": 2000}
    found = minimize(value_and_grad(loss), seen, jac=True, method="L-BFGS-B", options=options)
    axes = figure.subplots()
    axes.plot(seen, ".", color=INK, alpha=0.5, markersize=5, label="measured")
    axes.plot(truth, color=INK, linewidth=1, dashes=(5, 3), label="true")
    axes.plot(found.x, color=ACCENT, linewidth=3, label="restored")
    axes.set(xlabel="place", ylabel="signal")
    axes.grid(axis="y")
    figure.legend(loc="outside upper right", ncols=3)
