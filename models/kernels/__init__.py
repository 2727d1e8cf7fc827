"""The training loop, twice: compiled (numba) and in slow NumPy. This module checks the door.

Both kernels have the same two functions, `learn` and `resolve`; they trust what is checked here.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import numpy as np

from models.errors import InvalidInput
from models.types import Bytes, Float32s, Float64s, Int64s

Step = Literal["curvature", "linear", "adagrad", "published"]
Constraint = Literal["none", "dual", "augmented", "projection", "clipping"]
Shrink = Literal["implicit", "explicit"]
STEPS: tuple[Step, ...] = ("curvature", "linear", "adagrad", "published")
CONSTRAINTS: tuple[Constraint, ...] = ("none", "dual", "augmented", "projection", "clipping")
SHRINKS: tuple[Shrink, ...] = ("implicit", "explicit")
PRECISION_STEPS: frozenset[Step] = frozenset(("curvature", "linear"))
"""The steps whose accumulators are precisions; those of the others are sums of gradients."""


class Parameters(NamedTuple):
    """One side's parameters; see `offset.Table`.

    The first four are written in place. `latent_prior`, float32 [features, width], and
    `main_prior`, float32 [features]: the prior precision of each entry of a feature's values, zeros
    for the steps that keep sums of gradients.
    """

    latent: Float32s
    main: Float32s
    latent_evidence: Float32s
    main_evidence: Float32s
    dual: Float32s
    feature: Bytes
    latent_prior: Float32s
    main_prior: Float32s


class Values(NamedTuple):
    """One side's feature values as row numbers, CSR like `types.Ragged`.

    Those of one event are distinct, or the two kernels would differ.
    """

    rows: Int64s
    ptr: Int64s


class Rule(NamedTuple):
    """The step rule and the constraint, as numbers. Codes index `STEPS`, `CONSTRAINTS`, `SHRINKS`.

    `step_size` multiplies every step, `latent_step` those of latent vectors once more.
    `learning_rate` is AdaGrad's, and η0 of the published step with its `alpha` and `beta`.
    `weight_decay` is a fixed λ added to every latent vector's μ. `violation_weight` multiplies the
    present violation ‖v‖²/r² − 1 in the augmented form.
    `clip_norm` is the largest norm of a latent vector's gradient under the constraint `clipping`.
    """

    step: int
    constraint: int
    shrink: int
    step_size: float
    latent_step: float
    learning_rate: float
    alpha: float
    beta: float
    weight_decay: float
    violation_weight: float
    clip_norm: float
    user_radius: float
    ad_radius: float


class Shape(NamedTuple):
    """K user features, A ad features, o = overlap, s = alone."""

    user_features: int
    ad_features: int
    overlap: int
    alone: int

    @property
    def user_width(self) -> int:
        """d, entries of a user value's vector."""
        return (self.user_features - 1) * self.overlap + self.alone

    @property
    def dimensions(self) -> int:
        """D, entries of an ad value's vector."""
        pairs = self.user_features * (self.user_features - 1) // 2
        return pairs * self.overlap + self.user_features * self.alone


class Kernel(Protocol):
    """What both kernels are."""

    def learn(
        self,
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
        """Learn n events in order. Writes `user`, `ad`, `bias` and `scores` in place.

        `label`: float32 [n]; `bias`: float64 [2], b and its accumulator; `scores`: float32 [n, 2],
        each event's score without its interactions and its interactions, before it was learned.
        """

    def resolve(self, keys: Int64s, ids: Int64s) -> tuple[Int64s, Int64s]:
        """The row of each id, and where in `ids` each unseen one first stands.

        Unseen ids get the rows after `keys`, in order of first appearance. `keys` are distinct.
        """


def check(
    shape: Shape,
    user: Parameters,
    ad: Parameters,
    user_values: Values,
    ad_values: Values,
    label: Float32s,
) -> None:
    """Refuse what a kernel could not survive.

    Raises `InvalidInput` for a wrong type, shape or order of memory, a row number outside its
    table, a pointer that does not ascend, a feature without a value, or a label other than 0 or 1.
    """
    _check_label(label)
    sides = (
        ("user", user, user_values, shape.user_width, shape.user_features),
        ("ad", ad, ad_values, shape.dimensions, shape.ad_features),
    )
    for side, parameters, values, width, features in sides:
        _check_parameters(side, parameters, features, width)
        _check_values(side, values, len(parameters.main), features * len(label))


def _check_label(label: Float32s) -> None:
    _check_array("label", label, np.float32, (len(label),))
    wrong = np.flatnonzero((label != 0) & (label != 1))
    if len(wrong):
        at = f"label[{wrong[0]}]"
        raise InvalidInput(at, float(label[wrong[0]]), "a label is 0 or 1", "Mend the row.")


def _check_parameters(side: str, parameters: Parameters, features: int, width: int) -> None:
    n = len(parameters.main)
    for name in Parameters._fields:
        array: Float32s | Bytes = getattr(parameters, name)
        rows = features if name.endswith("prior") else n
        shape = (rows, width) if name.startswith("latent") else (rows,)
        dtype: type[np.generic] = np.uint8 if name == "feature" else np.float32
        _check_array(f"{side}.{name}", array, dtype, shape)


def _check_values(side: str, values: Values, rows: int, cells: int) -> None:
    _check_array(f"{side}.rows", values.rows, np.int64, (len(values.rows),))
    _check_array(f"{side}.ptr", values.ptr, np.int64, (cells + 1,))
    wrong = np.flatnonzero((values.rows < 0) | (values.rows >= rows))
    if len(wrong):
        at, limit = f"{side}.rows[{wrong[0]}]", f"the table has {rows} rows"
        raise InvalidInput(at, int(values.rows[wrong[0]]), limit, "Resolve the values first.")
    _check_pointers(side, values)


def _check_pointers(side: str, values: Values) -> None:
    ends = (int(values.ptr[0]), int(values.ptr[-1]))
    if ends != (0, len(values.rows)):
        limit = f"pointers run from 0 to {len(values.rows)}"
        raise InvalidInput(f"{side}.ptr", ends, limit, "Encode the rows anew.")
    empty = np.flatnonzero(np.diff(values.ptr) < 1)
    if len(empty):
        limit = "every feature of every row has at least one value"
        remedy = "Encode a missing value as the feature's missing value."
        raise InvalidInput(f"{side}.ptr[{empty[0]}]", int(values.ptr[empty[0]]), limit, remedy)


def _check_array(
    field: str,
    array: Float32s | Int64s | Bytes,
    dtype: type[np.generic],
    shape: tuple[int, ...],
) -> None:
    fits = array.dtype == dtype and array.shape == shape and array.flags.c_contiguous
    if not fits:
        limit = f"it is a C-contiguous {dtype.__name__} array of shape {shape}"
        raise InvalidInput(field, f"{array.dtype} {array.shape}", limit, "Convert it first.")
