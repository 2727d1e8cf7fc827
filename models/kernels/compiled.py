"""The training loop compiled by numba: equal to `reference`, some hundred times as fast.

Letters: j = ∂s/∂θ, e = p − y, h = p(1 − p), V = Σ j²/π over every parameter of an event.

K, A, o and s arrive as tuples of zeros: a tuple's length is part of its type, so every width is a
constant to LLVM (which unrolls and vectorises for it), one compilation serves one shape, and the
result can be cached on disk, which closures and generated code cannot. All scratch lies in one
array at constant offsets, so LLVM can tell its parts from each other.

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
from models.types import Float32s, Float64s, Int64s

_FAST = {"reassoc", "contract", "nsz", "arcp"}
_AHEAD = 2

_jit = njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
_inline = njit(nogil=True, fastmath=_FAST, error_model="numpy", inline="always")


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
    if len(label) == 0:
        return
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
    return int(np.diff(ptr[::features]).max())


@intrinsic
def _prefetch(typingctx, array, row):
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
    """A parameter's step per unit of slope, but for the event's damping."""
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
    """Each entry's move before damping at `moves[move]`; returns their part of V."""
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
def _constrain(step, width, rule, radius, latent, precision, dual, row, square, pace, step_size):
    """Shrink by μ, or project, a vector that has just moved to squared norm `square`."""
    ratio = square / np.float32(radius * radius)
    weight = np.float32(rule.weight_decay)
    if rule.constraint == 1 or rule.constraint == 2:
        weight += dual[row]
    if rule.constraint == 2 and ratio > np.float32(1.0):
        weight += np.float32(rule.violation_weight) * (ratio - np.float32(1.0))
    if weight > 0.0:
        _shrink(step, width, latent, precision, row, pace, weight * step_size)
    elif rule.constraint == 3 and ratio > np.float32(1.0):
        _scale(width, latent, row, np.float32(1.0) / np.sqrt(ratio))


@_inline
def _fetch_side(F, i, rows, ptr, latent, precision, main, main_precision):
    for n in range(ptr[i * len(F)], ptr[(i + 1) * len(F)]):
        _prefetch(latent, rows[n])
        _prefetch(precision, rows[n])
        _prefetch(main, rows[n])
        _prefetch(main_precision, rows[n])


@_inline
def _gather_side(F, each, width, i, rows, ptr, latent, main, out):
    """The features' means, each to its own row of `out` or (each = 0) summed in one; Σ w."""
    score = np.float32(0.0)
    for k in range(len(F)):
        first, last = ptr[i * len(F) + k], ptr[i * len(F) + k + 1]
        share = np.float32(1.0) / np.float32(last - first)
        mains = np.float32(0.0)
        for n in range(first, last):
            row = rows[n]
            mains += main[row]
            if n == first and (each == 1 or k == 0):
                _copy(width, latent, row, share, out, k * each)
            else:
                _add(width, latent, row, share, out, k * each)
        score += mains * share
    return score


@_inline
def _aim_side(step, F, each, width, i, rows, ptr, precision, main_precision, e, pace, slope, moves):
    """Fill `moves`, a row a value; returns the side's part of V."""
    V = np.float32(0.0)
    move = 0
    for k in range(len(F)):
        first, last = ptr[i * len(F) + k], ptr[i * len(F) + k + 1]
        share = np.float32(1.0) / np.float32(last - first)
        for n in range(first, last):
            row = rows[n]
            V += _aim(step, width, precision, row, share, e, pace, slope, k * each, moves, move)
            V += share * share / main_precision[row]
            move += 1
    return V


@_inline
def _move_side(
    step, F, each, width, i, rows, ptr, table, e, h, damping, pace, slope, moves, rule, radius
):
    """Move, constrain and grow every parameter of the side."""
    latent, main, precision, main_precision, dual = table
    distance = e * damping
    step_size = np.float32(rule.step_size)
    move = 0
    for k in range(len(F)):
        first, last = ptr[i * len(F) + k], ptr[i * len(F) + k + 1]
        share = np.float32(1.0) / np.float32(last - first)
        for n in range(first, last):
            row = rows[n]
            square = _move(
                step,
                width,
                latent,
                precision,
                row,
                share,
                e,
                h,
                distance,
                slope,
                k * each,
                moves,
                move,
            )
            _constrain(
                step, width, rule, radius, latent, precision, dual, row, square, pace, step_size
            )
            before = main_precision[row]
            ahead = _ahead(step, before, share, e)
            main[row] -= distance * share * _rate(step, ahead, pace)
            main_precision[row] = before + _growth(step, share, e, h)
            move += 1


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy", _nrt=False)
def _learn(
    K, A, o, s, step, rule, user, ad, user_values, ad_values, scratch, label, bias, predicted
):
    # Arrays are taken out of their tuples once: reading them there inside the loops would count
    # references, which keeps LLVM from vectorising.
    latent_u, main_u, precision_u, main_precision_u, dual_u = user
    latent_a, main_a, precision_a, main_precision_a, dual_a = ad
    rows_u, ptr_u = user_values
    rows_a, ptr_a = ad_values
    d = (len(K) - 1) * len(o) + len(s)
    D = len(K) * (len(K) - 1) // 2 * len(o) + len(K) * len(s)
    one = np.float32(1.0)
    pace = (np.float32(rule.learning_rate), np.float32(rule.alpha), np.float32(rule.beta))
    block, slope, vector, nu, moves_u, moves_a = scratch
    b, accumulator = bias[0], bias[1]
    for i in range(len(label)):
        if i + _AHEAD < len(label):
            _fetch_side(
                K, i + _AHEAD, rows_u, ptr_u, latent_u, precision_u, main_u, main_precision_u
            )
            _fetch_side(
                A, i + _AHEAD, rows_a, ptr_a, latent_a, precision_a, main_a, main_precision_a
            )
        score = np.float32(b)
        score += _gather_side(K, 1, d, i, rows_u, ptr_u, latent_u, main_u, block)
        score += _gather_side(A, 0, D, i, rows_a, ptr_a, latent_a, main_a, vector)
        _combine(K, o, s, block, slope, vector, nu)
        score += _inner(D, nu, vector)
        p = 1.0 / (1.0 + np.exp(-np.float64(score)))
        predicted[i] = p
        e, h = np.float32(p - label[i]), np.float32(p * (1.0 - p))
        V = np.float32(1.0 / accumulator)
        V += _aim_side(
            step, K, 1, d, i, rows_u, ptr_u, precision_u, main_precision_u, e, pace, slope, moves_u
        )
        V += _aim_side(
            step, A, 0, D, i, rows_a, ptr_a, precision_a, main_precision_a, e, pace, nu, moves_a
        )
        damping = np.float32(rule.step_size)
        if len(step) == 0:
            damping /= one + V * h
        _move_side(
            step,
            K,
            1,
            d,
            i,
            rows_u,
            ptr_u,
            (latent_u, main_u, precision_u, main_precision_u, dual_u),
            e,
            h,
            damping,
            pace,
            slope,
            moves_u,
            rule,
            rule.user_radius,
        )
        _move_side(
            step,
            A,
            0,
            D,
            i,
            rows_a,
            ptr_a,
            (latent_a, main_a, precision_a, main_precision_a, dual_a),
            e,
            h,
            damping,
            pace,
            nu,
            moves_a,
            rule,
            rule.ad_radius,
        )
        b -= e * damping * _rate(step, _ahead(step, np.float32(accumulator), one, e), pace)
        accumulator += _growth(step, one, e, h)
    bias[0], bias[1] = b, accumulator


def resolve(keys: Int64s, ids: Int64s) -> tuple[Int64s, Int64s]:
    """See `kernels.Kernel.resolve`."""
    rows, born = _resolve(np.ascontiguousarray(keys), np.ascontiguousarray(ids))
    return rows, born


@_jit
def _place(slots, shift, key, row):
    """The slot of `key` in an open-addressed table of (key, row + 1), which gets it if new."""
    mask = slots.shape[0] - 1
    at = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(shift)) & mask
    while slots[at, 1] != 0 and slots[at, 0] != key:
        at = (at + 1) & mask
    if slots[at, 1] == 0:
        slots[at, 0] = key
        slots[at, 1] = row + 1
    return slots[at, 1] - 1


@_jit
def _spread(slots, bits):
    """The same table, twice as large or more."""
    larger = np.zeros((1 << bits, 2), np.int64)
    for at in range(slots.shape[0]):
        if slots[at, 1] != 0:
            _place(larger, 64 - bits, slots[at, 0], slots[at, 1] - 1)
    return larger


@_jit
def _resolve(keys, ids):
    bits = 10
    while (1 << bits) < 4 * len(keys):
        bits += 1
    slots = np.zeros((1 << bits, 2), np.int64)
    for row in range(len(keys)):
        _place(slots, 64 - bits, keys[row], row)
    rows = np.empty(len(ids), np.int64)
    born = np.empty(1024, np.int64)
    count = len(keys)
    for n in range(len(ids)):
        row = _place(slots, 64 - bits, ids[n], count)
        rows[n] = row
        if row == count:
            if count - len(keys) == len(born):
                born = np.concatenate((born, np.empty_like(born)))
            born[count - len(keys)] = n
            count += 1
            if 2 * count > slots.shape[0]:
                bits += 1
                slots = _spread(slots, bits)
    return rows, born[: count - len(keys)].copy()
