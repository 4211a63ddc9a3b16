"""Factors in place, by blocks."""

import numpy as np
import pytest
from onnxq.quantization import factor

SIZES = [5, factor.BLOCK, factor.BLOCK + 1, 3 * factor.BLOCK - 7]


def positive(size, dtype=np.float64, groups=2):
    x = np.random.default_rng(size).standard_normal((groups, size, 2 * size))
    return (x @ x.swapaxes(1, 2) / size).astype(dtype)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_factor_is_that_of_lapack_in_the_matrix_itself(size, dtype):
    matrix = positive(size, dtype)
    wanted = np.linalg.cholesky(matrix)
    found = factor.cholesky(matrix)
    assert found is matrix
    assert np.allclose(found, wanted, atol=1e-4 if dtype is np.float32 else 1e-10)
    assert not np.triu(found, 1).any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("outputs", [1, 7])
def test_what_is_solved_by_blocks_is_the_solution(size, outputs):
    matrix, right = positive(size), np.random.default_rng(1).standard_normal((2, size, outputs))
    found = factor.solve(matrix.copy(), right)
    assert np.allclose(matrix @ found, right, atol=1e-9)


@pytest.mark.parametrize("size", SIZES[2:])
def test_a_matrix_without_a_factor_is_told(size):
    matrix = positive(size)
    matrix[1, -1, -1] = -1
    with pytest.raises(np.linalg.LinAlgError):
        factor.solve(matrix, np.ones((2, size, 1)))


@pytest.mark.parametrize("size", SIZES)
def test_a_damped_factor_gives_the_matrix_in_its_order(size):
    gram = positive(size) * 1e20
    order = np.stack([np.random.default_rng(seed).permutation(size) for seed in range(2)])
    lower = factor.factor_in_order(gram, order, 0.0, 1e-9).astype(np.float64)
    assert np.all(np.einsum("gii->gi", lower) == 1)
    wanted = np.stack([each[places][:, places] for each, places in zip(gram, order, strict=True)])
    # L·D·Lᵀ with the pivots of LAPACK's own factor.
    pivots = np.square(np.einsum("gii->gi", np.linalg.cholesky(wanted)))
    found = (lower * pivots[:, None]) @ lower.swapaxes(1, 2)
    assert np.allclose(found, wanted, rtol=1e-3, atol=1e15)
