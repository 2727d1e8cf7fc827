"""The feature schema: what `features.toml` declares, read once and checked to the last key."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import xxhash

from models.errors import SchemaInvalid

Side = Literal["user", "ad"]
Kind = Literal["categorical", "multi", "numeric"]

MAX_FEATURES = 64
"""Most features of one side; their index must fit an uint8 and the pairs must stay affordable."""
MAX_DIMENSIONS = 8192
"""Longest user or ad vector, in floats."""
MAX_EDGES = 1000

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_T = TypeVar("_T", bound="int | float")


def _between(default: _T, low: float, high: float) -> _T:
    """A number setting with its inclusive bounds; `dataclass` reads the field that this makes."""
    made: Any = field(default=default, metadata={"low": low, "high": high})
    return made  # type: ignore[no-any-return]  # typed as its default, for the reader of the class


def _chosen_if_absent(low: float, high: float) -> float | None:
    """A number setting without a fixed default: the learner derives one from the model's shape."""
    made: Any = field(default=None, metadata={"low": low, "high": high})
    return made  # type: ignore[no-any-return]  # typed as its default, for the reader of the class


def _one_of(*options: str) -> str:
    """A text setting with its options, the first being the default."""
    made: Any = field(default=options[0], metadata={"options": options})
    return made  # type: ignore[no-any-return]  # typed as its default, for the reader of the class


@dataclass(frozen=True, slots=True)
class Feature:
    """One declared feature.

    `edges`: bucket edges of a numeric feature, strictly ascending, left-closed. `variance`: the
    prior variance of its main effects when the file sets one.
    """

    side: Side
    name: str
    kind: Kind
    edges: tuple[float, ...] = ()
    variance: float | None = None

    @property
    def full_name(self) -> str:
        """`user.geo`: the name in logs and targeting."""
        return f"{self.side}.{self.name}"


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The `[model]` table: the vectors' shape and the learner's options.

    `overlap` (o) entries for each pair of user features, `alone` (s) for each feature by itself;
    `p_min`, `p_max`: the promised range of every served click probability, wide by default because
    it is kept by a certified bound, about twice as wide in logits as what occurs; radii: the
    largest norm of one feature value's latent vector in a served model, None for the learner's
    choice; `value_ttl_days`: a value unseen for so many days of event time loses its parameters,
    unless an ad that is not retired carries it; 0 keeps every value for ever.
    """

    overlap: int = _between(2, 1, 64)
    alone: int = _between(4, 0, 64)
    step: str = _one_of("curvature", "linear", "adagrad", "published")
    step_size: float = _between(1.0, 1e-6, 1e6)
    base_rate: float = _between(0.05, 1e-6, 1 - 1e-6)
    p_min: float = _between(1e-7, 1e-12, 1 - 1e-12)
    p_max: float = _between(1 - 1e-6, 1e-12, 1 - 1e-12)
    user_radius: float | None = _chosen_if_absent(1e-6, 1e6)
    ad_radius: float | None = _chosen_if_absent(1e-6, 1e6)
    seed: int = _between(1, 0, 2**53 - 1)
    value_ttl_days: float = _between(30.0, 0.0, 36_500.0)


@dataclass(frozen=True, slots=True)
class GateSettings:
    """The `[gate]` table: limits a candidate must keep before it may serve.

    `violation_limit`: largest raw norm over its radius; `projection_limit`: how far projection and
    repair may move the chunk's log loss; `log_loss_limit`: how much worse than the incumbent's the
    window's may be; `calibration_low`, `calibration_high`: the band of Σ predicted / Σ observed,
    widened by `calibration_errors` standard errors; `drift_limit`: root mean square move of probe
    scores; `score_limit`: largest |s| on probes; the window holds at most `window_events` events
    and is judged only once it has `window_clicks` clicks.
    """

    violation_limit: float = _between(2.0, 1.0, 1e6)
    projection_limit: float = _between(0.02, 0.0, 1e3)
    log_loss_limit: float = _between(0.02, 0.0, 1e3)
    calibration_low: float = _between(0.8, 0.0, 1.0)
    calibration_high: float = _between(1.25, 1.0, 1e3)
    calibration_errors: float = _between(3.0, 0.0, 100.0)
    drift_limit: float = _between(3.0, 1e-6, 1e3)
    score_limit: float = _between(20.0, 1e-3, 1e3)
    window_clicks: int = _between(200, 1, 10**9)
    window_events: int = _between(50_000, 1, 10**9)


@dataclass(frozen=True, slots=True)
class Schema:
    """What the model sees: features in file order, the model's shape, the gate's limits.

    `hash` covers exactly what gives parameters their meaning (sides, names, kinds, edges, order,
    overlap, alone), so a changed limit or step size does not orphan a snapshot.
    """

    user: tuple[Feature, ...]
    ad: tuple[Feature, ...]
    model: ModelSettings
    gate: GateSettings
    hash: str

    @property
    def user_width(self) -> int:
        """d = (K−1)·o + s: the length of one user feature value's latent vector."""
        return (len(self.user) - 1) * self.model.overlap + self.model.alone

    @property
    def dimensions(self) -> int:
        """D = K(K−1)/2 · o + K·s: the length of user and ad vectors."""
        count = len(self.user)
        return count * (count - 1) // 2 * self.model.overlap + count * self.model.alone

    def has(self, side: Side, name: str) -> bool:
        """Whether the schema declares this feature, `name` without its side."""
        return any(feature.name == name for feature in getattr(self, side))


def load_schema(path: Path) -> Schema:
    """Read a schema file. Raises `SchemaInvalid` when it cannot be read or has a mistake."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        remedy = "Give the path of a features.toml with --features or ADSCENT_FEATURES."
        raise SchemaInvalid(
            "features file", str(path), f"it cannot be read ({error.strerror})", remedy
        ) from error
    except UnicodeDecodeError as error:
        raise SchemaInvalid(
            "features file", str(path), "it is not UTF-8", "Save the file as UTF-8."
        ) from error
    return parse_schema(text)


def parse_schema(text: str) -> Schema:
    """Parse and check the TOML of a feature schema. Raises `SchemaInvalid`."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SchemaInvalid(
            "features.toml", str(error), "it must be valid TOML", "Mend the line it names."
        ) from error
    _only(tables, ("version", "user", "ad", "model", "gate"), "")
    _check_version(tables.get("version"))
    user, ad = _side("user", tables.get("user")), _side("ad", tables.get("ad"))
    model = _settings(ModelSettings, "model", tables.get("model", {}))
    gate = _settings(GateSettings, "gate", tables.get("gate", {}))
    if not model.p_min < model.p_max:
        raise SchemaInvalid(
            "model.p_min", model.p_min, f"it must be below p_max ({model.p_max})", "Lower p_min."
        )
    schema = Schema(user, ad, model, gate, _fingerprint(user, ad, model))
    _check_size(schema)
    return schema


def _check_version(version: object) -> None:
    if version != 1 or isinstance(version, bool):
        raise SchemaInvalid("version", version, "it must be 1", "Write version = 1 at the top.")


def _check_size(schema: Schema) -> None:
    if schema.user_width < 1:
        raise SchemaInvalid(
            "model.alone",
            schema.model.alone,
            "with one user feature it must be at least 1",
            "Set alone = 4.",
        )
    if schema.dimensions > MAX_DIMENSIONS:
        raise SchemaInvalid(
            "model.overlap",
            schema.model.overlap,
            f"vectors would have {schema.dimensions} dimensions, the limit is {MAX_DIMENSIONS}",
            "Lower overlap or alone, or declare fewer user features.",
        )


def _only(table: Mapping[str, object], known: tuple[str, ...], prefix: str) -> None:
    for key in table:
        if key not in known:
            raise SchemaInvalid(
                prefix + key,
                table[key],
                f"known here: {', '.join(known)}",
                "Correct the name or remove it.",
            )


def _side(side: Side, tables: object) -> tuple[Feature, ...]:
    if tables is None or tables == {}:
        raise SchemaInvalid(
            side, None, "at least one feature is needed", f"Add a table such as [{side}.name]."
        )
    if not isinstance(tables, dict):
        raise SchemaInvalid(side, tables, "it must be a table", f"Write [{side}.name] tables.")
    if len(tables) > MAX_FEATURES:
        raise SchemaInvalid(
            side, len(tables), f"at most {MAX_FEATURES} features", "Declare fewer features."
        )
    return tuple(_feature(side, name, table) for name, table in tables.items())


def _feature(side: Side, name: str, table: object) -> Feature:
    full = f"{side}.{name}"
    if not _NAME.fullmatch(name):
        raise SchemaInvalid(
            full,
            name,
            "a letter, then at most 62 letters, digits, _ or -",
            "Rename the feature.",
        )
    if not isinstance(table, dict):
        raise SchemaInvalid(full, table, "it must be a table", f'Write [{full}] and kind = "…".')
    _only(table, ("kind", "edges", "variance"), full + ".")
    kind: Any = table.get("kind")
    if kind not in get_args(Kind):
        raise SchemaInvalid(
            f"{full}.kind", kind, f"one of {', '.join(get_args(Kind))}", "Set one of these kinds."
        )
    return Feature(side, name, kind, _edges(full, kind, table), _variance(full, table))


def _edges(full: str, kind: str, table: Mapping[str, object]) -> tuple[float, ...]:
    edges = table.get("edges")
    where = f"{full}.edges"
    if kind != "numeric":
        if edges is not None:
            remedy = 'Remove edges, or set kind = "numeric".'
            raise SchemaInvalid(where, edges, "only a numeric feature has edges", remedy)
        return ()
    if not isinstance(edges, list) or not 1 <= len(edges) <= MAX_EDGES:
        remedy = "Add the bucket edges, for instance edges = [10, 20, 50]."
        raise SchemaInvalid(where, edges, f"a list of 1 to {MAX_EDGES} numbers", remedy)
    for edge in edges:
        if not _is_number(edge):
            raise SchemaInvalid(where, edge, "every edge is a finite number", "Mend this edge.")
    for before, after in pairwise(edges):
        if before >= after:
            limit = f"edges ascend strictly, but {before} comes before it"
            raise SchemaInvalid(where, after, limit, "Sort the edges and drop repeats.")
    return tuple(float(edge) for edge in edges)


def _variance(full: str, table: Mapping[str, object]) -> float | None:
    value = table.get("variance")
    if value is None:
        return None
    if not _is_number(value) or not 0 < float(value) <= 1e6:  # type: ignore[arg-type]  # a number
        remedy = "Leave it out, or set for instance variance = 0.1."
        raise SchemaInvalid(f"{full}.variance", value, "above 0, at most 1000000", remedy)
    return float(value)  # type: ignore[arg-type]  # checked above


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_Settings = TypeVar("_Settings", ModelSettings, GateSettings)


def _settings(kind: type[_Settings], name: str, table: object) -> _Settings:
    if not isinstance(table, dict):
        raise SchemaInvalid(name, table, "it must be a table", f"Write [{name}] on its own line.")
    known = {item.name: item for item in fields(kind)}
    _only(table, tuple(known), name + ".")
    given: dict[str, Any] = {}
    for key, value in table.items():
        default: Any = known[key].default
        _check_setting(f"{name}.{key}", value, default, known[key].metadata)
        given[key] = value if isinstance(default, int | str) else float(value)
    return kind(**given)


def _check_setting(where: str, value: object, default: object, metadata: Mapping[str, Any]) -> None:
    remedy = "Leave it out" + ("." if default is None else f" for the default, {default!r}.")
    if "options" in metadata:
        if value not in metadata["options"]:
            raise SchemaInvalid(where, value, f"one of {', '.join(metadata['options'])}", remedy)
        return
    if isinstance(default, int) and (not isinstance(value, int) or isinstance(value, bool)):
        raise SchemaInvalid(where, value, "it must be a whole number", remedy)
    if not _is_number(value):
        raise SchemaInvalid(where, value, "it must be a finite number", remedy)
    low, high = metadata["low"], metadata["high"]
    if not low <= value <= high:
        raise SchemaInvalid(where, value, f"it must lie between {low:g} and {high:g}", remedy)


def _fingerprint(user: tuple[Feature, ...], ad: tuple[Feature, ...], model: ModelSettings) -> str:
    declared = [[item.side, item.name, item.kind, list(item.edges)] for item in user + ad]
    content = json.dumps([1, declared, model.overlap, model.alone], separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(content.encode())
