"""Factors of the symmetric matrices that layers are fitted with, and what is solved by them.

A layer of thousands of inputs has matrices of hundreds of megabytes: they are factored in place, by
products of blocks, which use every core.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Matrix = TypeVar("Matrix", Floats, Singles)

BLOCK = 192
"""Rows of a matrix that LAPACK factors: what is left of a larger one is products of matrices."""


def cholesky(matrix: Matrix) -> Matrix:
    """L with zeros above its diagonal and L·Lᵀ = the matrix (groups, size, size), in its place.

    Raises:
        numpy.linalg.LinAlgError: there is none; the matrix is changed all the same.
    """
    size = matrix.shape[-1]
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        column, before = matrix[:, start:, start:stop], matrix[:, start:, :start]
        if start:
            column -= before @ before[:, : stop - start].swapaxes(1, 2)
        corner, below = column[:, : stop - start], column[:, stop - start :]
        corner[...] = np.linalg.cholesky(corner)
        if stop < size:
            below[...] = below @ np.linalg.inv(corner).swapaxes(1, 2)
            matrix[:, start:stop, stop:] = 0
    return matrix


def solve(matrix: Floats, right: Floats) -> Floats:
    """X with matrix·X = `right` (groups, size, any), of a matrix that it changes.

    Raises:
        numpy.linalg.LinAlgError: of more than `BLOCK` rows, and not positive definite.
    """
    size = matrix.shape[-1]
    if size <= BLOCK:
        return np.asarray(np.linalg.solve(matrix, right))
    lower, result = cholesky(matrix), right.copy()
    starts = range(0, size, BLOCK)
    for start in starts:
        rows = slice(start, start + BLOCK)
        if start:
            result[:, rows] -= lower[:, rows, :start] @ result[:, :start]
        result[:, rows] = np.linalg.solve(lower[:, rows, rows], result[:, rows])
    for start in reversed(starts):
        rows, after = slice(start, start + BLOCK), slice(start + BLOCK, None)
        upper = lower[:, start:, rows].swapaxes(1, 2)
        if start + BLOCK < size:
            result[:, rows] -= upper[:, :, BLOCK:] @ result[:, after]
        result[:, rows] = np.linalg.solve(upper[:, :, :BLOCK], result[:, rows])
    return result


def factor_in_order(gram: Floats, order: Array, noise: Floats | float, damping: float) -> Singles:
    """Rᵀ with a diagonal of ones and Rᵀ·D·R = `gram` in an order, damped until that exists.

    Args:
        gram: (groups, columns, columns), which rounding may leave with eigenvalues further below 0
            than `noise` expects.
        order: of the columns of each group.
        noise: how much of the diagonal may be rounding, for each group.
        damping: added to the diagonal, as a share of its mean.
    """
    diagonal = np.take_along_axis(np.einsum("gii->gi", gram), order, axis=1)
    power = np.maximum(diagonal.mean(axis=1), 0)
    # In units of its own: float32 holds the squares of neither 1e20 nor 1e-30.
    unit = np.where(power > 0, power, 1.0)
    diagonal, power, noise = diagonal / unit[:, None], power / unit, noise / unit
    growth = 1.0
    while True:
        damped = _sorted(gram, order, unit)
        np.einsum("gii->gi", damped)[...] = diagonal + damping_of(
            growth * (damping * power + noise)
        )
        try:
            lower = cholesky(damped)
        except np.linalg.LinAlgError:
            growth *= 10
            continue
        lower /= np.einsum("gii->gi", lower)[:, None, :].copy()
        return lower


def damping_of(added: Floats) -> Floats:
    """What is added to the diagonals of groups: (groups, 1)."""
    # A group whose inputs are all 0 has no say: any weight will do.
    return np.where(added > 0, added, 1.0)[:, None]


def _sorted(gram: Floats, order: Array, unit: Floats) -> Singles:
    """With the rows and columns of each group in an order and a unit of its own."""
    result = np.empty(gram.shape, np.float32)
    for found, each, places, one in zip(result, gram, order, unit, strict=True):
        for start in range(0, len(places), BLOCK):
            rows = places[start : start + BLOCK]
            found[start : start + BLOCK] = each.take(rows, 0).take(places, 1) / one
    return result
