"""The training loop compiled by numba: equal to `reference`, some hundred times as fast.

Letters: j = ∂s/∂θ, e = p − y, V = Σ j²/π over every parameter of an event, h the information that
the event adds for j = 1.

K, A, o and s arrive as tuples of None: a tuple's length is part of its type, so every width is a
constant to LLVM (which unrolls and vectorises for it: three to five times as fast), one compilation
serves one shape, and the result can be cached on disk, which closures and generated code cannot.
The step rule, the constraint and the form of the shrink arrive the same way, as the index of each
in `STEPS`, `CONSTRAINTS` and `SHRINKS`: what a rule does not use is not compiled for it.

Functions that are inlined are each compiled once, for both sides, and without the wrappers that
Python would call them by; integers that are literals would compile them twice, hence `np.int64(0)`.
They stay in this file, long as it is: numba's cache on disk looks only at the file that holds the
cached function, and would go on with what one in another file was before a change.

Floating-point flags allow reordering and fused operations, not the assumption that values are
finite: a NaN or infinity stays one, for the gate to see.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from models.kernels import Parameters, Rule, Shape, Values
from models.kernels.lookup import resolve
from models.types import Float32s, Float64s, Int64s

__all__ = ["learn", "resolve", "score"]

_FAST = {"reassoc", "contract", "nsz", "arcp"}
_AHEAD = 2
"""How many events ahead parameters are fetched: large tables lie in main memory."""

# Without reference counts (`_nrt`): they would be touched in every loop, and keep LLVM from
# vectorising. Nothing is allocated in here, so none are needed.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "fastmath": _FAST,
    "error_model": "numpy",
    "_nrt": False,
    "no_cfunc_wrapper": True,
}
_inline = njit(forceinline=True, no_cpython_wrapper=True, **_OPTIONS)


class _Side(NamedTuple):
    """One side of the events, users or ads.

    `each`: 1 if every feature has a row of its own in `means` and `slope` (users), 0 if all share
    the first (ads). `moves` has a row for each value of one event.
    """

    features: np.int64
    each: np.int64
    width: int
    radius: float
    values: Values
    table: Parameters
    means: Float32s
    slope: Float32s
    moves: Float32s


def learn(
    shape: Shape,
    rule: Rule,
    user: Parameters,
    ad: Parameters,
    user_values: Values,
    ad_values: Values,
    label: Float32s,
    bias: Float64s,
    scores: Float32s,
) -> None:
    """See `kernels.Kernel.learn`."""
    sides = (user, ad, user_values, ad_values)
    _run(shape, rule, sides, label, bias, scores, learns=True)


def score(
    shape: Shape,
    rule: Rule,
    user: Parameters,
    ad: Parameters,
    user_values: Values,
    ad_values: Values,
    bias: float,
    scores: Float32s,
) -> None:
    """Write `scores` as `learn` does, of parameters that stay as they are.

    It is the same compiled code, left early at each event. Of `rule` only the codes count: those
    that `learn` is called with need no compilation of their own.
    """
    sides, biases = (user, ad, user_values, ad_values), np.array([bias, 1.0])
    _run(shape, rule, sides, np.zeros(len(scores), np.float32), biases, scores, learns=False)


def _run(
    shape: Shape,
    rule: Rule,
    sides: tuple[Parameters, Parameters, Values, Values],
    label: Float32s,
    bias: Float64s,
    scores: Float32s,
    *,
    learns: bool,
) -> None:
    counts = (*shape, rule.step, rule.constraint, rule.shrink)
    _learn(
        *((None,) * count for count in counts),
        Rule(*map(np.float32, rule)),  # type: ignore[arg-type]  # numba takes it for any numbers
        *sides,
        _scratch(shape, *sides[2:]),
        label,
        bias,
        scores,
        learns,
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
            builder,
            ir.Constant(stride.type, 0),
            stride,
            ir.Constant(stride.type, 64),
            stride.type,
        ) as (offset, _):
            at = builder.inttoptr(builder.add(start, offset), byte)
            builder.call(function, [at, *arguments])
        return context.get_dummy_value()

    return types.void(array, row), generate


@_inline
def _rate(step, rule, known, gradient):
    """A parameter's step per unit of slope, from its precision or sum of gradients.

    Sums of gradients decide it with the present one in.
    """
    if len(step) <= 1:
        return np.float32(1.0) / known
    total = known + _growth(step, gradient, np.float32(0.0), np.float32(0.0))
    if len(step) == 2:
        return rule.learning_rate / np.sqrt(rule.alpha + total)
    return rule.learning_rate / (rule.alpha + total**rule.beta)


@_inline
def _growth(step, gradient, j, h):
    """What an event adds to a parameter's accumulator."""
    if len(step) <= 1:
        return h * j * j
    return gradient * gradient if len(step) == 2 else abs(gradient)


@_inline
def _clipped(constraint, rule, side, share, at, e):
    """The e at which a vector's gradient is within the limit, if there is one."""
    if len(constraint) != 4:
        return e
    square = np.float32(0.0)
    for t in range(side.width):
        square += side.slope[at, t] * side.slope[at, t]
    norm = abs(e) * share * np.sqrt(square)
    return e if norm <= rule.clip_norm else e * (rule.clip_norm / norm)


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
def _inner(width, left, right):
    total = np.float32(0.0)
    for t in range(width):
        total += left[0, t] * right[0, t]
    return total


@_inline
def _fetch_side(side, i):
    """Ask for the parameters of event i, which the next events will not have to wait for."""
    table = side.table
    for n in range(side.values.ptr[i * side.features], side.values.ptr[(i + 1) * side.features]):
        row = side.values.rows[n]
        _prefetch(table.latent, row)
        _prefetch(table.latent_evidence, row)
        _prefetch(table.main, row)
        _prefetch(table.main_evidence, row)


@_inline
def _copy(width, latent, row, share, out, at):
    for t in range(width):
        out[at, t] = share * latent[row, t]


@_inline
def _add(width, latent, row, share, out, at):
    for t in range(width):
        out[at, t] += share * latent[row, t]


@_inline
def _gather_side(side, i):
    """The features' means, each to its own row of `means` or all summed in one; returns Σ w."""
    score, table, ptr = np.float32(0.0), side.table, side.values.ptr
    for k in range(side.features):
        first, last = ptr[i * side.features + k], ptr[i * side.features + k + 1]
        share, at = np.float32(1.0) / np.float32(last - first), k * side.each
        mains = np.float32(0.0)
        for n in range(first, last):
            row = side.values.rows[n]
            mains += table.main[row]
            if n == first and (side.each == 1 or k == 0):
                _copy(side.width, table.latent, row, share, side.means, at)
            else:
                _add(side.width, table.latent, row, share, side.means, at)
        score += mains * share
    return score


@_inline
def _aim(step, rule, width, table, row, k, share, e, slope, at, moves, move):
    """Each entry's move for e = 1 at `moves[move]`; returns their part of V."""
    total = np.float32(0.0)
    for t in range(width):
        j = share * slope[at, t]
        known = table.latent_prior[k, t] + table.latent_evidence[row, t]
        q = j * _rate(step, rule, known, e * j)
        moves[move, t] = q
        total += j * q
    return total


@_inline
def _aim_side(step, constraint, rule, side, i, e):
    """Fill `moves`, a row a value; returns the side's part of V."""
    V, move, width = np.float32(0.0), np.int64(0), side.width
    table, ptr = side.table, side.values.ptr
    for k in range(side.features):
        first, last = ptr[i * side.features + k], ptr[i * side.features + k + 1]
        share, at = np.float32(1.0) / np.float32(last - first), k * side.each
        clipped = _clipped(constraint, rule, side, share, at, e)
        for n in range(first, last):
            row = side.values.rows[n]
            V += _aim(
                step, rule, width, table, row, k, share, clipped, side.slope, at, side.moves, move
            )
            V += share * share / (table.main_prior[k] + table.main_evidence[row])
            move += 1
    return V


@_inline
def _move(step, width, latent, evidence, row, share, e, h, distance, slope, at, moves, move):
    """Move one vector and grow its accumulators; returns its squared norm."""
    square = np.float32(0.0)
    for t in range(width):
        moved = latent[row, t] - distance * moves[move, t]
        latent[row, t] = moved
        square += moved * moved
        j = share * slope[at, t]
        evidence[row, t] += _growth(step, e * j, j, h)
    return square


@_inline
def _constrain(step, constraint, shrink, rule, side, k, row, square):
    """Shrink by μ, or project, a vector that has just moved to squared norm `square`."""
    one, latent = np.float32(1.0), side.table.latent
    ratio = square / (side.radius * side.radius)
    weight = rule.weight_decay
    if len(constraint) == 1 or len(constraint) == 2:
        weight += side.table.dual[row]
    if len(constraint) == 2 and ratio > one:
        weight += rule.violation_weight * (ratio - one)
    if weight > 0.0:
        strength = weight * rule.step_size * rule.latent_step
        for t in range(side.width):
            known = side.table.latent_prior[k, t] + side.table.latent_evidence[row, t]
            pull = strength * _rate(step, rule, known, np.float32(0.0))
            latent[row, t] *= one / (one + pull) if len(shrink) == 0 else one - pull
    elif len(constraint) == 3 and ratio > one:
        factor = one / np.sqrt(ratio)
        for t in range(side.width):
            latent[row, t] *= factor


@_inline
def _move_side(step, constraint, shrink, rule, side, i, e, h):
    """Move, constrain and grow every parameter of the side."""
    move, width = np.int64(0), side.width
    table, ptr = side.table, side.values.ptr
    for k in range(side.features):
        first, last = ptr[i * side.features + k], ptr[i * side.features + k + 1]
        share, at = np.float32(1.0) / np.float32(last - first), k * side.each
        clipped = _clipped(constraint, rule, side, share, at, e)
        distance = clipped * rule.step_size * rule.latent_step
        for n in range(first, last):
            row = side.values.rows[n]
            square = _move(
                step, width, table.latent, table.latent_evidence, row, share, clipped, h,
                distance, side.slope, at, side.moves, move,
            )  # fmt: skip
            _constrain(step, constraint, shrink, rule, side, k, row, square)
            evidence, gradient = table.main_evidence[row], e * share
            known = table.main_prior[k] + evidence
            table.main[row] -= gradient * rule.step_size * _rate(step, rule, known, gradient)
            table.main_evidence[row] = evidence + _growth(step, gradient, share, h)
            move += 1


@_inline
def _landing(score, p, V, y):
    """pCTR at the score x that solves x = score − V(σ(x) − y), from p = σ(score).

    Newton's method in a bracket that is halved instead wherever the moves do not halve: alone it
    would circle for ever around the bend of σ when V is large.
    """
    far = score - V * (p - y)
    low, high = (far, score) if far < score else (score, far)
    x = score - V * (p - y) / (1.0 + V * p * (1.0 - p))
    p, before = 1.0 / (1.0 + np.exp(-x)), np.inf
    for _ in range(60):
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
        if x <= low or x >= high or abs(move) > 0.5 * before:
            x = 0.5 * (low + high)
        before = abs(move)
        p = 1.0 / (1.0 + np.exp(-x))
    return p


@_inline
def _surprise(step, score, p, V, y):
    """The e that every parameter steps by, and the information h that the event adds."""
    if len(step) == 0:
        landed = _landing(score, p, V, y)
        return np.float32(landed - y), np.float32(1.0 / (1.0 / (landed * (1.0 - landed)) + V))
    h = p * (1.0 - p)
    if len(step) == 1:
        return np.float32((p - y) / (1.0 + V * h)), np.float32(h / (1.0 + V * h))
    return np.float32(p - y), np.float32(0.0)


@njit(cache=True, **_OPTIONS)
def _learn(
    K, A, o, s, step, constraint, shrink, rule, user, ad, user_values, ad_values, scratch, label,
    bias, scores, learns,
):  # fmt: skip
    """The event loop. K, A, o, s, step and the like are tuples of that length, see the module."""
    d = (len(K) - 1) * len(o) + len(s)
    D = len(K) * (len(K) - 1) // 2 * len(o) + len(K) * len(s)
    F, G, each, summed = np.int64(len(K)), np.int64(len(A)), np.int64(1), np.int64(0)
    block, slope, vector, nu, user_moves, ad_moves = scratch
    users = _Side(F, each, d, rule.user_radius, user_values, user, block, slope, user_moves)
    ads = _Side(G, summed, D, rule.ad_radius, ad_values, ad, vector, nu, ad_moves)
    one = np.float32(1.0)
    b, accumulator = bias[0], bias[1]
    for i in range(len(label)):
        if i + _AHEAD < len(label):
            _fetch_side(users, i + _AHEAD)
            _fetch_side(ads, i + _AHEAD)
        score = np.float32(b) + _gather_side(users, i) + _gather_side(ads, i)
        _combine(K, o, s, block, slope, vector, nu)
        inner = _inner(D, nu, vector)
        scores[i, 0], scores[i, 1] = score, inner
        if not learns:
            continue
        score += inner
        p = 1.0 / (1.0 + np.exp(-np.float64(score)))
        e = np.float32(p - label[i])
        V = np.float32(1.0 / accumulator)
        V += _aim_side(step, constraint, rule, users, i, e)
        V += _aim_side(step, constraint, rule, ads, i, e)
        e, h = _surprise(step, np.float64(score), p, np.float64(V), np.float64(label[i]))
        _move_side(step, constraint, shrink, rule, users, i, e, h)
        _move_side(step, constraint, shrink, rule, ads, i, e, h)
        b -= e * rule.step_size * _rate(step, rule, np.float32(accumulator), e)
        accumulator += _growth(step, e, one, h)
    bias[0], bias[1] = b, accumulator
