"""Several threads over the same tables without locks.

Threads learn neighbouring blocks of events at the same time. The rows that most events touch would
travel between the processors' caches at every event, which made two threads two to three times
slower than one. So each thread has copies of those rows, and of the bias, for the length of a
block; then what it learned is merged into the tables and its copies are made anew. All other rows
are shared without locks (F. Niu et al., Hogwild!, arXiv 1106.5730): one that two threads touch at
once may lose one of the two updates. A run is therefore not reproducible, and one thread stays the
default.

Accumulators grow by what the copy grew. Under precisions a copy's news is its evidence
`π w − π₀ w₀`, and evidence adds up: the product of Gaussians. Sums of gradients have no such
meaning: there the moves add up.

Compiled code releases the interpreter's lock. numba's own parallel layers are not used: they need a
library of the system, or abort when two threads enter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

import numpy as np

from models.kernels import PRECISION_STEPS, STEPS, Kernel, Parameters, Rule, Shape, Values
from models.types import Float32s, Float64s, Int64s

BLOCK = 8192
"""Events that a thread learns between two merges: some milliseconds.

Measured on a seeded market from its first event on: 8,192 costs 0.0002 log loss against one thread,
16,384 0.0003, a quarter of that once 300,000 events are learned; smaller blocks cost speed.
"""

HOT = 512
"""Rows of a side, the most frequent of a chunk, of which each thread has its own copy."""

_SAMPLE = 17
"""One value of so many is counted to find the hot rows: a number of features would miss some."""

_PAIRS = (("latent", "latent_evidence"), ("main", "main_evidence"))
_PRIORS = ("latent_prior", "main_prior")

Pair = tuple[Float32s | Float64s, Float32s | Float64s]
"""Parameters and their accumulators."""


def room(threads: int) -> int:
    """Rows that a table must have after its last for `threads` to keep their copies in."""
    return HOT * threads if threads > 1 else 0


@dataclass(frozen=True, slots=True)
class Parallel:
    """A kernel whose `learn` runs several of another's; tables end with `room(threads)` rows."""

    kernel: Kernel
    threads: int

    def resolve(self, keys: Int64s, ids: Int64s) -> tuple[Int64s, Int64s]:
        """See `kernels.Kernel.resolve`."""
        return self.kernel.resolve(keys, ids)

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
        """See `kernels.Kernel.learn`. Fewer events than a block are learned by one thread."""
        parts = (
            (user, user_values, shape.user_features),
            (ad, ad_values, shape.ad_features),
        )
        is_precise = STEPS[rule.step] in PRECISION_STEPS
        users, ads = (_side(*part, self.threads, is_precise) for part in parts)
        tables = (user, ad)

        def learn_block(thread: int, start: int, end: int, own: Float64s) -> Float64s:
            values = users.events(thread, start, end), ads.events(thread, start, end)
            outputs = own, scores[start:end]
            self.kernel.learn(shape, rule, *tables, *values, label[start:end], *outputs)
            return own

        _run(learn_block, len(label), self.threads, (users, ads), _Bias(bias, is_precise))


def _run(
    learn_block: Callable[[int, int, int, Float64s], Float64s],
    events: int,
    threads: int,
    sides: Sequence[_Side],
    bias: _Bias,
) -> None:
    """Blocks in time order, each to the next thread that is free. The caller's thread merges."""
    block = _block(events, threads)
    idle, running = list(range(threads)), dict[Future[Float64s], int]()
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, events, block):
            if not idle:
                idle = _collect(running, sides, bias)
            thread = idle.pop(0)
            for side in sides:
                side.begin(thread)
            arguments = thread, start, min(start + block, events), bias.begin(thread)
            running[pool.submit(learn_block, *arguments)] = thread
        while running:
            _collect(running, sides, bias)


def _collect(
    running: dict[Future[Float64s], int], sides: Sequence[_Side], bias: _Bias
) -> list[int]:
    """Merge what has ended, once something has; returns the threads that are free by that."""
    ended = wait(running, return_when=FIRST_COMPLETED).done
    threads = [running.pop(future) for future in ended]
    for future, thread in zip(ended, threads, strict=True):
        bias.end(thread, future.result())
        for side in sides:
            side.end(thread)
    return threads


def _block(events: int, threads: int) -> int:
    """Events of a block: all, if there are too few to share, else such that all end at once."""
    rounds = max(round(events / (BLOCK * threads)), 1)
    return max(-(-events // (rounds * threads)), min(BLOCK, events), 1)


@dataclass(frozen=True, slots=True)
class _Bias:
    """The bias and its accumulator, and what they were when each thread began."""

    values: Float64s
    is_precise: bool
    before: dict[int, Float64s] = field(default_factory=dict)

    def begin(self, thread: int) -> Float64s:
        """A copy for the thread."""
        self.before[thread] = self.values.copy()
        return self.values.copy()

    def end(self, thread: int, own: Float64s) -> None:
        """Merge the thread's copy."""
        now, before, copy = ((one[:1], one[1:]) for one in (self.values, self.before[thread], own))
        prior = np.zeros(1) if self.is_precise else None
        self.values[:] = np.concatenate(merged(now, before, copy, prior))


@dataclass(frozen=True, slots=True)
class _Side:
    """One side's table and values, as each thread sees them.

    `hot`: the rows of which thread t has copies, from row `first + t · HOT` on; `priors`: the prior
    precisions of these rows' parameters; `numbers`: for each thread the row number of every row.
    """

    table: Parameters
    values: Values
    features: int
    hot: Int64s
    first: int
    priors: Sequence[Float32s | None]
    numbers: Sequence[Int64s]
    before: dict[int, list[Pair]] = field(default_factory=dict)

    def events(self, thread: int, start: int, end: int) -> Values:
        """Events `start` to `end` with the row numbers of a thread."""
        ptr = self.values.ptr[start * self.features : end * self.features + 1]
        rows = np.take(self.numbers[thread], self.values.rows[ptr[0] : ptr[-1]], mode="clip")
        return Values(rows, ptr - ptr[0])

    def begin(self, thread: int) -> None:
        """Give the thread its copies."""
        home = self._home(thread)
        self.before[thread] = [self._pair(names, self.hot) for names in _PAIRS]
        for names, pair in zip(_PAIRS, self.before[thread], strict=True):
            self._write(names, home, pair)

    def end(self, thread: int) -> None:
        """Merge the thread's copies."""
        parts = zip(_PAIRS, self.before[thread], self.priors, strict=True)
        for names, before, prior in parts:
            now, own = self._pair(names, self.hot), self._pair(names, self._home(thread))
            self._write(names, self.hot, merged(now, before, own, prior))

    def _home(self, thread: int) -> slice:
        start = self.first + thread * HOT
        return slice(start, start + len(self.hot))

    def _pair(self, names: tuple[str, str], rows: Int64s | slice) -> Pair:
        return getattr(self.table, names[0])[rows], getattr(self.table, names[1])[rows]

    def _write(self, names: tuple[str, str], rows: Int64s | slice, pair: Pair) -> None:
        for name, values in zip(names, pair, strict=True):
            getattr(self.table, name)[rows] = values


def _side(
    table: Parameters, values: Values, features: int, threads: int, is_precise: bool
) -> _Side:
    rows = len(table.main) - room(threads)
    counts = np.bincount(values.rows[::_SAMPLE], minlength=rows)
    most = np.argpartition(counts, rows - HOT)[rows - HOT :] if rows > HOT else np.arange(rows)
    hot = np.sort(most)
    priors = [getattr(table, name)[table.feature[hot]] if is_precise else None for name in _PRIORS]
    side = _Side(table, values, features, hot, rows, priors, [])
    numbers = [np.arange(rows) for _ in range(threads)]
    for thread, number in enumerate(numbers):
        home = side._home(thread)
        number[side.hot] = np.arange(home.start, home.stop)
        table.dual[home] = table.dual[side.hot]
    return replace(side, numbers=numbers)


def merged(now: Pair, before: Pair, own: Pair, prior: Float32s | Float64s | None) -> Pair:
    """A parameter and its accumulator with what a thread learned on a copy from `before` on.

    `now`: as other threads have left them since; `own`: the copy; `prior`: the prior's part of the
    precisions, None where accumulators are sums of gradients.
    """
    after = now[1] + (own[1] - before[1])
    if prior is None:
        return now[0] + (own[0] - before[0]), after
    told, of_now, of_before = (pair[0] * (prior + pair[1]) for pair in (own, now, before))
    return (of_now + (told - of_before)) / (prior + after), after
