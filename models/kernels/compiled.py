"""The training loop compiled by numba: equal to `reference`, some hundred times as fast.

Letters: j = ∂s/∂θ, e = p − y, V = Σ j²/π over every parameter of an event, h the information that
the event adds for j = 1.

K, A, o and s arrive as tuples of None: a tuple's length is part of its type, so every width is a
constant to LLVM (which unrolls and vectorises for it: three to five times as fast), one compilation
serves one shape, and the result can be cached on disk, which closures and generated code cannot.
The step rule arrives the same way.

Floating-point flags allow reordering and fused operations, not the assumption that values are
finite: a NaN or infinity stays one, for the gate to see.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from models.kernels import Parameters, Rule, Shape, Values
from models.kernels.lookup import resolve
from models.types import Float32s, Float64s, Int64s

__all__ = ["learn", "resolve"]

_FAST = {"reassoc", "contract", "nsz", "arcp"}
_AHEAD = 2
"""How many events ahead parameters are fetched: large tables lie in main memory."""

_inline = njit(nogil=True, fastmath=_FAST, error_model="numpy", forceinline=True, _nrt=False)


def learn(
    shape: Shape,
    rule: Rule,
    user: Parameters,
    ad: Parameters,
    user_values: Values,
    ad_values: Values,
    label: Float32s,
    bias: Float64s,
    predicted: Float32s,
) -> None:
    """See `kernels.Kernel.learn`."""
    _learn(
        (None,) * shape.user_features,
        (None,) * shape.ad_features,
        (None,) * shape.overlap,
        (None,) * shape.alone,
        (None,) * rule.step,
        rule,
        user,
        ad,
        user_values,
        ad_values,
        _scratch(shape, user_values, ad_values),
        label,
        bias,
        predicted,
    )


def _scratch(shape: Shape, user: Values, ad: Values) -> tuple[Float32s, ...]:
    """Room for one event: blocks and slopes [K, d], ν_a and ν_u [1, D], moves, a row a value."""
    d, D = shape.user_width, shape.dimensions
    K, A = shape.user_features, shape.ad_features
    user_moves, ad_moves = _longest(user.ptr, K), _longest(ad.ptr, A)
    sizes = ((K, d), (K, d), (1, D), (1, D), (user_moves, d), (ad_moves, D))
    return tuple(np.zeros(size, np.float32) for size in sizes)


def _longest(ptr: Int64s, features: int) -> int:
    """The largest number of values that one row has."""
    return int(np.diff(ptr[::features]).max(initial=1))


@intrinsic
def _prefetch(_context, array, row):
    """Ask the processor for every cache line of `array[row]`, a C-contiguous 1-D or 2-D array."""

    def generate(context, builder, signature, arguments):
        kind = signature.args[0]
        view = context.make_array(kind)(context, builder, arguments[0])
        stride = cgutils.unpack_tuple(builder, view.strides)[0]
        base = builder.ptrtoint(view.data, stride.type)
        start = builder.add(base, builder.mul(arguments[1], stride))
        byte = ir.PointerType(ir.IntType(8))
        number = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte, number, number, number]),
            "llvm.prefetch.p0",
        )
        arguments = [ir.Constant(number, value) for value in (1, 3, 1)]
        with cgutils.for_range_slice(
            builder, ir.Constant(stride.type, 0), stride, ir.Constant(stride.type, 64), stride.type
        ) as (offset, _):
            at = builder.inttoptr(builder.add(start, offset), byte)
            builder.call(function, [at, *arguments])
        return context.get_dummy_value()

    return types.void(array, row), generate


@_inline
def _rate(step, accumulator, pace):
    """A parameter's step per unit of slope and of step size."""
    if len(step) == 0:
        return np.float32(1.0) / accumulator
    if len(step) == 1:
        return pace[0] / np.sqrt(pace[1] + accumulator)
    return pace[0] / (pace[1] + accumulator ** pace[2])


@_inline
def _growth(step, j, e, h):
    """What an event adds to a parameter's accumulator."""
    if len(step) == 0:
        return h * j * j
    if len(step) == 1:
        return e * j * e * j
    return abs(e * j)


@_inline
def _ahead(step, before, j, e):
    """The accumulator that decides a step: the sums of gradients hold the present one already."""
    if len(step) == 0:
        return before
    return before + _growth(step, j, e, e)


@_inline
def _copy(width, latent, row, share, out, at):
    for t in range(width):
        out[at, t] = share * latent[row, t]


@_inline
def _add(width, latent, row, share, out, at):
    for t in range(width):
        out[at, t] += share * latent[row, t]


@_inline
def _inner(width, left, right):
    total = np.float32(0.0)
    for t in range(width):
        total += left[0, t] * right[0, t]
    return total


@_inline
def _combine(K, o, s, block, slope, vector, nu):
    """ν_u at `nu[0]` and ∂s/∂block at `slope`, from `block` [K, d] and ν_a at `vector[0]`."""
    at = 0
    for k in range(len(K)):
        for other in range(k + 1, len(K)):
            for t in range(len(o)):
                left = (other - 1) * len(o) + t
                right = k * len(o) + t
                a, b, c = block[k, left], block[other, right], vector[0, at + t]
                nu[0, at + t] = a * b
                slope[k, left] = b * c
                slope[other, right] = a * c
            at += len(o)
    first = (len(K) - 1) * len(o)
    for k in range(len(K)):
        for t in range(len(s)):
            nu[0, at + t] = block[k, first + t]
            slope[k, first + t] = vector[0, at + t]
        at += len(s)


@_inline
def _aim(step, width, precision, row, share, e, pace, slope, at, moves, move):
    """Each entry's move for e = 1 at `moves[move]`; returns their part of V."""
    total = np.float32(0.0)
    for t in range(width):
        j = share * slope[at, t]
        q = j * _rate(step, _ahead(step, precision[row, t], j, e), pace)
        moves[move, t] = q
        total += j * q
    return total


@_inline
def _move(step, width, latent, precision, row, share, e, h, distance, slope, at, moves, move):
    """Move one vector and grow its accumulators; returns its squared norm."""
    square = np.float32(0.0)
    for t in range(width):
        moved = latent[row, t] - distance * moves[move, t]
        latent[row, t] = moved
        square += moved * moved
        precision[row, t] += _growth(step, share * slope[at, t], e, h)
    return square


@_inline
def _shrink(step, width, latent, precision, row, pace, strength):
    """The implicit shrink of one vector; `strength` is μ times the step size."""
    for t in range(width):
        rate = _rate(step, precision[row, t], pace)
        latent[row, t] /= np.float32(1.0) + strength * rate


@_inline
def _scale(width, latent, row, factor):
    for t in range(width):
        latent[row, t] *= factor


@_inline
def _landing(score, V, y):
    """pCTR at the score x that solves x = score − V(σ(x) − y): Newton's method in a bracket."""
    e = 1.0 / (1.0 + np.exp(-score)) - y
    low, high = min(score, score - V * e), max(score, score - V * e)
    x = score - V * e / (1.0 + V * (e + y) * (1.0 - e - y))
    p = 1.0 / (1.0 + np.exp(-x))
    for _ in range(30):
        excess = x - score + V * (p - y)
        if excess > 0.0:
            high = x
        else:
            low = x
        move = excess / (1.0 + V * p * (1.0 - p))
        if abs(move) < 1e-3:
            p -= move * p * (1.0 - p)
            break
        x -= move
        if x <= low or x >= high:
            x = 0.5 * (low + high)
        p = 1.0 / (1.0 + np.exp(-x))
    return p


@_inline
def _constrain(step, width, rule, radius, table, row, square, pace, step_size):
    """Shrink by μ, or project, a vector that has just moved to squared norm `square`."""
    ratio = square / np.float32(radius * radius)
    weight = np.float32(rule.weight_decay)
    if rule.constraint == 1 or rule.constraint == 2:
        weight += table.dual[row]
    if rule.constraint == 2 and ratio > np.float32(1.0):
        weight += np.float32(rule.violation_weight) * (ratio - np.float32(1.0))
    if weight > 0.0:
        _shrink(step, width, table.latent, table.latent_precision, row, pace, weight * step_size)
    elif rule.constraint == 3 and ratio > np.float32(1.0):
        _scale(width, table.latent, row, np.float32(1.0) / np.sqrt(ratio))


@_inline
def _fetch_side(F, i, values, table):
    """Ask for the parameters of event i, which the next events will not have to wait for."""
    for n in range(values.ptr[i * len(F)], values.ptr[(i + 1) * len(F)]):
        row = values.rows[n]
        _prefetch(table.latent, row)
        _prefetch(table.latent_precision, row)
        _prefetch(table.main, row)
        _prefetch(table.main_precision, row)


@_inline
def _gather_side(F, each, width, i, values, table, out):
    """The features' means, each to its own row of `out` or (each = 0) summed in one; Σ w."""
    score = np.float32(0.0)
    for k in range(len(F)):
        first, last = values.ptr[i * len(F) + k], values.ptr[i * len(F) + k + 1]
        share = np.float32(1.0) / np.float32(last - first)
        mains = np.float32(0.0)
        for n in range(first, last):
            row = values.rows[n]
            mains += table.main[row]
            if n == first and (each == 1 or k == 0):
                _copy(width, table.latent, row, share, out, k * each)
            else:
                _add(width, table.latent, row, share, out, k * each)
        score += mains * share
    return score


@_inline
def _aim_side(step, F, each, width, i, values, table, e, pace, slope, moves):
    """Fill `moves`, a row a value; returns the side's part of V."""
    V = np.float32(0.0)
    precision, move = table.latent_precision, 0
    for k in range(len(F)):
        first, last = values.ptr[i * len(F) + k], values.ptr[i * len(F) + k + 1]
        share = np.float32(1.0) / np.float32(last - first)
        for n in range(first, last):
            row = values.rows[n]
            V += _aim(step, width, precision, row, share, e, pace, slope, k * each, moves, move)
            V += share * share / table.main_precision[row]
            move += 1
    return V


@_inline
def _move_side(step, F, each, width, i, values, table, e, h, pace, slope, moves, rule, radius):
    """Move, constrain and grow every parameter of the side."""
    latent, precision, move = table.latent, table.latent_precision, 0
    step_size = np.float32(rule.step_size)
    distance = e * step_size
    for k in range(len(F)):
        first, last = values.ptr[i * len(F) + k], values.ptr[i * len(F) + k + 1]
        share, at = np.float32(1.0) / np.float32(last - first), k * each
        for n in range(first, last):
            row = values.rows[n]
            square = _move(
                step, width, latent, precision, row, share, e, h, distance, slope, at, moves, move
            )
            _constrain(step, width, rule, radius, table, row, square, pace, step_size)
            before = table.main_precision[row]
            rate = _rate(step, _ahead(step, before, share, e), pace)
            table.main[row] -= distance * share * rate
            table.main_precision[row] = before + _growth(step, share, e, h)
            move += 1


# Without reference counts (`_nrt`): they would be touched in every loop, and keep LLVM from
# vectorising. Nothing is allocated in here, so none are needed.
@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy", _nrt=False)
def _learn(
    K, A, o, s, step, rule, user, ad, user_values, ad_values, scratch, label, bias, predicted
):
    """The event loop. K, A, o, s and step are tuples of that length, see the module."""
    d = (len(K) - 1) * len(o) + len(s)
    D = len(K) * (len(K) - 1) // 2 * len(o) + len(K) * len(s)
    one, step_size = np.float32(1.0), np.float32(rule.step_size)
    pace = (np.float32(rule.learning_rate), np.float32(rule.alpha), np.float32(rule.beta))
    block, slope, vector, nu, moves_u, moves_a = scratch
    b, accumulator = bias[0], bias[1]
    for i in range(len(label)):
        if i + _AHEAD < len(label):
            _fetch_side(K, i + _AHEAD, user_values, user)
            _fetch_side(A, i + _AHEAD, ad_values, ad)
        score = np.float32(b)
        score += _gather_side(K, 1, d, i, user_values, user, block)
        score += _gather_side(A, 0, D, i, ad_values, ad, vector)
        _combine(K, o, s, block, slope, vector, nu)
        score += _inner(D, nu, vector)
        p = 1.0 / (1.0 + np.exp(-np.float64(score)))
        predicted[i] = p
        e, h = np.float32(p - label[i]), np.float32(0.0)
        V = np.float32(1.0 / accumulator)
        V += _aim_side(step, K, 1, d, i, user_values, user, e, pace, slope, moves_u)
        V += _aim_side(step, A, 0, D, i, ad_values, ad, e, pace, nu, moves_a)
        if len(step) == 0:
            landed = _landing(np.float64(score), np.float64(V), np.float64(label[i]))
            e = np.float32(landed - label[i])
            h = np.float32(1.0 / (1.0 / (landed * (1.0 - landed)) + V))
        radius = rule.user_radius
        _move_side(step, K, 1, d, i, user_values, user, e, h, pace, slope, moves_u, rule, radius)
        radius = rule.ad_radius
        _move_side(step, A, 0, D, i, ad_values, ad, e, h, pace, nu, moves_a, rule, radius)
        rate = _rate(step, _ahead(step, np.float32(accumulator), one, e), pace)
        b -= e * step_size * rate
        accumulator += _growth(step, one, e, h)
    bias[0], bias[1] = b, accumulator
