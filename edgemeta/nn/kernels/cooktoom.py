"""Cook-Toom (Winograd) convolution: the three matrices, derived from a handful of points.

**The idea.** m neighbouring outputs of a convolution with k weights read a = m + k - 1 inputs,

    y[i] = sum over j of w[j] * d[i + j],        i < m,  j < k,

and cost m*k multiplications when computed as written. They can be had from a multiplications:

    y = A^T ( (G w) * (B d) )                     B: (a, a), G: (a, k), A: (a, m); * is element by element

In a network, w and d are sums over channels inside, so that each of the a products is a matrix product between tiles
and filters, and the three transforms around it are small constants. In two dimensions they act on rows and columns:
4x4 outputs of a 5x5 kernel take 8*8 = 64 products instead of 4*4*5*5 = 400.

**Why it holds.** Read w and any h (m numbers) as the coefficients of polynomials. Their product has a coefficients,
sum over i + j = n of w[j] h[i], and is known from its values at a points, where it is just the product of the values:

    product = V^-1 ( (V_k w) * (V_m h) ),         V_n: (a, n), row u = (1, p, p^2, ...) at the point p of u

The convolution is the same thing read backwards. For every h, with <,> the dot product,

    <y, h> = sum over i, j of w[j] d[i + j] h[i] = <d, product> = <(V^-T d) * (V_k w), V_m h>,

and what holds for every h gives y itself: A = V_m, G = V_k, B = V^-T. One of the points may be "infinity", where the
value of a polynomial is its highest coefficient.

**Example.** m = k = 2, a = 3, points 0, 1, infinity: three multiplications instead of four.

    V = 1 0 0     B = 1 -1  0     G = 1 0     A = 1 0      products: (d0 - d1) w0,  d1 (w0 + w1),  (d2 - d1) w1
        1 1 1         0  1  0         1 1         1 1      y0 = first + second = d0 w0 + d1 w1
        0 0 1         0 -1  1         0 1         0 1      y1 = second + third = d1 w0 + d2 w1

**Rounding.** Each row u may be scaled as long as the three factors multiply to one. Large and small numbers in one
sum cost digits, so rows are brought to a like size; and B and A, which are applied most often, get entries that
floating point holds exactly (sums of powers of two), leaving the odd divisors to G.
"""

import math
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Rows = list[list[Fraction]]

TILE = 4  # outputs of one tile, along each axis: more save little more and round worse
# Small points round least. A kernel of 3 uses the first five and infinity, a kernel of 5 all seven and infinity.
POINTS = (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2))
KERNELS = (3, 5)  # 1 has nothing to save, and 7 would need points that round too much for float32


class Transforms(NamedTuple):
    """inputs: B (a, a); weights: G (a, k); outputs: A (a, m); overlap: see `_overlap`. All float32."""

    inputs: Array
    weights: Array
    outputs: Array
    overlap: Array


@cache
def transforms(kernel: int) -> Transforms:
    """Return the matrices for tiles of TILE outputs under a kernel of so many weights."""
    inputs, weights, outputs = exact(POINTS[: TILE + kernel - 2], kernel, TILE)
    b, g, a = (np.array(rows, np.float64).astype(np.float32) for rows in (inputs, weights, outputs))
    return Transforms(b, g, a, _overlap(b, kernel // 2))


def exact(points: tuple[int | Fraction, ...], kernel: int, outputs: int) -> tuple[Rows, Rows, Rows]:
    """Return B, G and A, scaled, for the finite `points` and infinity."""
    size = len(points) + 1
    b = [list(column) for column in zip(*_inverse(_evaluate(points, size)), strict=True)]
    g, a = _evaluate(points, kernel), _evaluate(points, outputs)
    for u in range(size):
        divisor = math.lcm(*(entry.denominator for entry in b[u]))
        odd = Fraction(divisor // (divisor & -divisor))
        to_b, to_a = odd * _like_one(b[u], odd), _like_one(a[u])
        b[u] = [entry * to_b for entry in b[u]]
        a[u] = [entry * to_a for entry in a[u]]
        g[u] = [entry / (to_b * to_a) for entry in g[u]]
    return b, g, a


def _evaluate(points: tuple[int | Fraction, ...], coefficients: int) -> Rows:
    """Return the matrix that evaluates a polynomial of so many coefficients at the points and at infinity."""
    rows = [[Fraction(point) ** power for power in range(coefficients)] for point in points]
    return [*rows, [Fraction(power == coefficients - 1) for power in range(coefficients)]]


def _inverse(matrix: Rows) -> Rows:
    """Return the inverse (Gauss-Jordan); the rows are distinct points', so it exists."""
    size = len(matrix)
    rows = [[*row, *(Fraction(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        pivot = next(row for row in rows[i:] if row[i])
        rows.remove(pivot)
        rows.insert(i, [entry / pivot[i] for entry in pivot])
        for j in set(range(size)) - {i}:
            rows[j] = [entry - rows[j][i] * above for entry, above in zip(rows[j], rows[i], strict=True)]
    return [row[size:] for row in rows]


def _like_one(row: list[Fraction], scale: Fraction = Fraction(1)) -> Fraction:
    """Return the power of two that brings the row, times scale, near to length one."""
    return Fraction(2) ** -round(math.log2(math.hypot(*(float(entry * scale) for entry in row))))


def _overlap(b: Array, padding: int) -> Array:
    """Return the matrix (m, 3a) that takes the gradients of three neighbouring tiles to m inputs' gradients.

    Tiles of inputs overlap: the inputs under one tile of outputs, which start `padding` into its own tile of
    inputs, are also in the tiles before and after. Each tile's part is B^T of its gradient; this lays the parts' rows
    side by side, so that one product sums them.
    """
    size = len(b)
    overlap = np.zeros((TILE, 3, size), b.dtype)
    for row in range(TILE):
        for neighbour in (-1, 0, 1):
            position = row + padding - TILE * neighbour
            if 0 <= position < size:
                overlap[row, neighbour + 1] = b[:, position]
    return overlap.reshape(TILE, 3 * size)
