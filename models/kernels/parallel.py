"""Several threads over the same tables without locks.

Threads learn neighbouring blocks of events at the same time. The rows that most events touch would
travel between the processors' caches at every event, which made two threads two to three times
slower than one. So each thread has copies of those rows, and of the bias, for the length of a
block; then it merges what it learned into the tables and makes its copies anew. All other rows
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

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Lock

import numpy as np

from models.kernels import PRECISION_STEPS, STEPS, Kernel, Parameters, Rule, Shape, Values
from models.types import Float32s, Float64s, Int64s

BLOCK = 8_192
"""Events that a thread learns between two merges: some milliseconds."""

EARLY = 2_000.0
"""One thread learns until the bias has so much information, some 2,000 clicks.

Copies that know next to nothing all learn the same large things, which then add up: on a seeded
market two threads cost 0.0007 log loss over the first 60,000 events if both begin at once.
"""

HOT = 512
"""Rows of a side, the most frequent of a chunk, of which each thread has its own copy."""

_RUN, _ONE_IN = 1024, 16
"""Values are counted in runs, one of so many, to find the hot rows: a run has every feature."""

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
        """See `kernels.Kernel.learn`. One thread learns the first events of all, see `EARLY`."""
        is_precise = STEPS[rule.step] in PRECISION_STEPS
        users = _side(user, user_values, shape.user_features, self.threads, is_precise)
        ads = _side(ad, ad_values, shape.ad_features, self.threads, is_precise)
        biases = _Bias(bias, is_precise)

        def learn_block(thread: int | None, start: int, end: int) -> None:
            values = users.events(thread, start, end), ads.events(thread, start, end)
            own, outputs = biases.of(thread), scores[start:end]
            self.kernel.learn(shape, rule, user, ad, *values, label[start:end], own, outputs)

        first = 0
        while bias[1] < EARLY and first < len(label):
            learn_block(None, first, min(first + BLOCK, len(label)))
            first += BLOCK
        _run(learn_block, _blocks(first, len(label), self.threads), (users, ads, biases))


Blocks = Iterator[tuple[int, int]]
"""The first event of each and the one after its last, in time order."""


def _blocks(first: int, events: int, threads: int) -> Blocks:
    """The events from `first` on in blocks that all threads end at about the same time."""
    left = max(events - first, 0)
    rounds = max(round(left / (BLOCK * threads)), 1)
    size = max(-(-left // (rounds * threads)), min(BLOCK, left), 1)
    return iter([(start, min(start + size, events)) for start in range(first, events, size)])


def _run(
    learn_block: Callable[[int | None, int, int], None],
    blocks: Blocks,
    parts: tuple[_Side, _Side, _Bias],
) -> None:
    """Each thread takes the next block, and merges what it learned itself: none waits for others.

    Only one merges at a time.
    """
    lock = Lock()

    def work(thread: int) -> None:
        while True:
            with lock:
                for part in parts:
                    part.renew(thread)
                block = next(blocks, None)
            if block is None:
                return
            learn_block(thread, *block)

    threads = range(len(parts[0].numbers))
    with ThreadPoolExecutor(len(threads)) as pool:
        list(pool.map(work, threads))  # raises what a thread raised


@dataclass(frozen=True, slots=True)
class _Bias:
    """The bias and its accumulator; each thread's copy, and what that was when it was made."""

    values: Float64s
    is_precise: bool
    own: dict[int, Float64s] = field(default_factory=dict)
    before: dict[int, Float64s] = field(default_factory=dict)

    def of(self, thread: int | None) -> Float64s:
        """The copy of a thread, or the bias itself."""
        return self.values if thread is None else self.own[thread]

    def renew(self, thread: int) -> None:
        """Merge the thread's copy, if it has one, and make it anew."""
        if thread in self.own:
            arrays = self.values, self.before[thread], self.own[thread]
            now, before, own = ((one[:1], one[1:]) for one in arrays)
            prior = np.zeros(1) if self.is_precise else None
            self.values[:] = np.concatenate(merged(now, before, own, prior))
        self.own[thread], self.before[thread] = self.values.copy(), self.values.copy()


@dataclass(frozen=True, slots=True)
class _Side:
    """One side's table and values, as each thread sees them.

    `hot`: the rows of which thread t has copies, from row `first + t · HOT` on; `priors`: the prior
    precisions of these rows' parameters; `numbers`: for each thread the row number of every row;
    `before`: what each thread's copies were when they were made.
    """

    table: Parameters
    values: Values
    features: int
    hot: Int64s
    first: int
    priors: Sequence[Float32s | None]
    numbers: Sequence[Int64s]
    before: dict[int, list[Pair]] = field(default_factory=dict)

    def events(self, thread: int | None, start: int, end: int) -> Values:
        """Events `start` to `end` with the row numbers of a thread, or those of the table."""
        ptr = self.values.ptr[start * self.features : end * self.features + 1]
        rows = self.values.rows[ptr[0] : ptr[-1]]
        if thread is not None:
            rows = np.take(self.numbers[thread], rows, mode="clip")
        return Values(rows, ptr - ptr[0])

    def renew(self, thread: int) -> None:
        """Merge the thread's copies, if it has some, and make them anew."""
        home, present = self._home(thread), []
        for nth, (names, prior) in enumerate(zip(_PAIRS, self.priors, strict=True)):
            now = self._pair(names, self.hot)
            if thread in self.before:
                now = merged(now, self.before[thread][nth], self._pair(names, home), prior)
                self._write(names, self.hot, now)
            self._write(names, home, now)
            present.append(now)
        self.before[thread] = present

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
    hot = hottest(values.rows, rows)
    priors = [getattr(table, name)[table.feature[hot]] if is_precise else None for name in _PRIORS]
    side = _Side(table, values, features, hot, rows, priors, [])
    numbers = [np.arange(rows) for _ in range(threads)]
    for thread, number in enumerate(numbers):
        home = side._home(thread)
        number[side.hot] = np.arange(home.start, home.stop)
        table.dual[home] = table.dual[side.hot]
    return replace(side, numbers=numbers)


def hottest(values: Int64s, rows: int) -> Int64s:
    """The most frequent of `rows` row numbers among `values`, `HOT` of them at most, ascending."""
    if rows <= HOT:
        return np.arange(rows)
    runs = len(values) // _RUN
    if runs >= _ONE_IN:
        values = values[: runs * _RUN].reshape(runs, _RUN)[::_ONE_IN].ravel()
    counts = np.bincount(values, minlength=rows)
    return np.sort(np.argpartition(counts, rows - HOT)[rows - HOT :])


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
