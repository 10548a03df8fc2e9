"""The type of an array goes through each function: what takes NumPy's arrays returns NumPy's arrays to a type checker.

mypy proves each `assert_type`: as part of all code for NumPy, and with the types of PyTorch and JAX by
``mypy --config-file=tests/peers/mypy.ini``. At run time, the results are asked for their types.
"""

from typing import Any, TypeAlias, assert_type

import jax
import numpy as np
import torch

import pullback as pb

NumPy: TypeAlias = np.ndarray[tuple[Any, ...], np.dtype[Any]]


def test_shapes_and_dtypes_of_numpy() -> None:
    z, w = np.zeros((4, 3)), np.zeros((3, 2))
    a = pb.affine_forward(z, w)
    gradients = pb.affine_backward(a, z, w)
    assert_type(a, np.ndarray[tuple[int, int], np.dtype[np.float64]])
    assert_type(gradients.dw, np.ndarray[tuple[int, int], np.dtype[np.float64]] | None)
    assert isinstance(a, np.ndarray)
    assert isinstance(gradients.dw, np.ndarray)


def test_numpy() -> None:
    z: NumPy = np.zeros((4, 3))
    w: NumPy = np.zeros((3, 2))
    b: NumPy = np.zeros(2)
    form: NumPy = np.zeros((3, 3))
    one: NumPy = np.asarray(1.0)
    assert_type(pb.affine_forward(z, w, b), NumPy)
    assert_type(pb.affine_backward(z @ w, z, w), pb.AffineGradients[NumPy])
    assert_type(pb.affine_jvp(z, w, z_tangent=z), NumPy)
    assert_type(pb.affine_double_backward(z, None, None, z @ w, z, w), pb.AffineDoubleGradients[NumPy])
    assert_type(pb.matmul_forward(z, w), NumPy)
    assert_type(pb.matmul_backward(z @ w, z, w), pb.MatmulGradients[NumPy])
    assert_type(pb.matmul_jvp(z, w, x1_tangent=z), NumPy)
    assert_type(pb.matmul_double_backward(z, None, z @ w, z, w), pb.MatmulDoubleGradients[NumPy])
    assert_type(pb.frobenius_inner(z, z), NumPy)
    assert_type(pb.frobenius_inner_backward(one, z, z), pb.FrobeniusInnerGradients[NumPy])
    assert_type(pb.trace_of_product(z, z.T), NumPy)
    assert_type(pb.trace_of_product_backward(one, z, z.T), pb.TraceOfProductGradients[NumPy])
    assert_type(pb.quadratic_form(z, form), NumPy)
    assert_type(pb.quadratic_form_backward(z[:, 0], z, form), pb.QuadraticFormGradients[NumPy])
    assert_type(pb.affine_jacobians(z, w), pb.AffineJacobians[NumPy])
    assert_type(pb.weight_jacobian_slice(z, 0, 1, 2), NumPy)
    operator = pb.JacobianOperator(z, w, wrt=("w",))
    assert_type(operator, pb.JacobianOperator[NumPy])
    assert_type(operator.matvec(np.reshape(w, (6,))), NumPy)
    a, saved = pb.stack_forward([pb.Affine(z.T, None), pb.RELU], w.T)
    assert_type(a, NumPy)
    assert_type(pb.stack_backward(a, saved), pb.StackGradients[NumPy])
    assert isinstance(a, np.ndarray)


def test_activations_and_losses_of_numpy() -> None:
    a: NumPy = np.zeros((4, 3))
    labels = np.zeros(4, dtype=int)
    for forward in (pb.relu_forward, pb.sigmoid_forward, pb.tanh_forward, pb.softmax_forward):
        assert_type(forward(a), NumPy)
    for backward in (pb.relu_backward, pb.sigmoid_backward, pb.tanh_backward, pb.softmax_backward):
        assert_type(backward(a, a), NumPy)
    assert_type(pb.softmax_forward(a, axis=0, mask=a > 0), NumPy)
    assert_type(pb.log_softmax_backward(a, a, mask=a > 0), NumPy)
    assert_type(pb.squared_error(a, a), pb.Loss[NumPy])
    assert_type(pb.softmax_cross_entropy(a, labels).da, NumPy)
    assert_type(pb.logistic_hessian_product(a, a, labels[:, None] + np.zeros((4, 3), dtype=int)), NumPy)
    assert isinstance(pb.softmax_cross_entropy(a, labels).da, np.ndarray)


def test_gradients_of_examples_of_numpy() -> None:
    da: NumPy = np.zeros((4, 2))
    z: NumPy = np.zeros((4, 3))
    assert_type(pb.per_example_gradients(da, z), pb.ParameterGradients[NumPy])
    assert_type(pb.per_example_norms(da, z), NumPy)
    clipped = pb.clipped_gradients(da, z, 1.0)
    assert_type(clipped, pb.ParameterGradients[NumPy])
    assert_type(pb.kfac_factors(da, z).a, NumPy)
    assert_type(pb.second_moments(da, z).db, NumPy | None)
    assert isinstance(clipped.dw, np.ndarray)


def test_torch() -> None:
    z, w = torch.zeros(4, 3), torch.zeros(3, 2)
    a = pb.affine_forward(z, w, torch.zeros(2))
    dz, dw, db = pb.affine_backward(a, z, w)
    assert_type(a, torch.Tensor)
    assert_type(dz, torch.Tensor | None)
    assert_type(pb.matmul_forward(z, w), torch.Tensor)
    assert_type(pb.stack_forward([pb.Affine(w)], z).a, torch.Tensor)
    assert_type(pb.relu_forward(a), torch.Tensor)
    assert_type(pb.softmax_cross_entropy(a, torch.zeros(4, dtype=torch.int64)), pb.Loss[torch.Tensor])
    assert {type(a), type(dz), type(dw), type(db)} == {torch.Tensor}


def test_jax() -> None:
    z, w = jax.numpy.zeros((4, 3)), jax.numpy.zeros((3, 2))
    a = pb.affine_forward(z, w, jax.numpy.zeros(2))
    dz, dw, db = pb.affine_backward(a, z, w)
    assert_type(a, jax.Array)
    assert_type(dz, jax.Array | None)
    assert_type(pb.matmul_forward(z, w), jax.Array)
    assert_type(pb.stack_forward([pb.Affine(w)], z).a, jax.Array)
    assert_type(pb.relu_forward(a), jax.Array)
    assert_type(pb.softmax_cross_entropy(a, jax.numpy.zeros(4, dtype=int)), pb.Loss[jax.Array])
    assert all(isinstance(x, jax.Array) for x in (a, dz, dw, db))
