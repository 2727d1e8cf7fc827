"""The feature schema and the encoder."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from models.errors import FeatureUnknown, FeatureValueInvalid, SchemaInvalid
from models.features import (
    Encoder,
    Feature,
    Schema,
    canonical,
    load_schema,
    pack,
    parse_schema,
    stack,
    unpack,
    value_hash,
)
from models.types import Ad

TEXT = """
version = 1
[user.geo]
kind = "categorical"
[user.interest]
kind = "multi"
[user.age]
kind = "numeric"
edges = [18, 25.5, 40]
[ad.creative]
kind = "categorical"
variance = 1.0
[ad.category]
kind = "multi"
[model]
overlap = 3
alone = 2
"""
SCHEMA = parse_schema(TEXT)
GEO, AGE = SCHEMA.user[0], SCHEMA.user[2]
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = st.one_of(WORDS, st.integers(-(2**60), 2**60), st.booleans())
USERS = st.fixed_dictionaries(
    {},
    optional={
        "geo": st.none() | SCALARS,
        "interest": st.none() | SCALARS | st.lists(SCALARS, max_size=6),
        "age": st.none() | st.floats(-1e9, 1e9),
    },
)
ADS = st.fixed_dictionaries(
    {}, optional={"creative": SCALARS, "category": st.lists(SCALARS, max_size=6)}
)


def test_shape_follows_the_counts_of_features() -> None:
    """d = (K−1)·o + s and D = K(K−1)/2·o + K·s, here for K=3, o=3, s=2."""
    assert (SCHEMA.user_width, SCHEMA.dimensions) == (8, 15)


def test_the_default_schema_has_the_shape_the_kernel_is_unrolled_for() -> None:
    """The schema at the repository's root is K=6, o=4, s=4, so D=84."""
    schema = load_schema(Path(__file__).parents[2] / "features.toml")
    shape = len(schema.user), schema.model.overlap, schema.model.alone, schema.dimensions
    assert shape == (6, 4, 4, 84)


def test_hash_ignores_what_does_not_change_the_meaning_of_parameters() -> None:
    """A gate limit, a step size or a comment keeps the hash."""
    changed = TEXT + "step_size = 0.5 # slower\n[gate]\nviolation_limit = 3.0\n"
    assert parse_schema(changed).hash == SCHEMA.hash


@pytest.mark.parametrize(
    ("before", "after"),
    [("18,", "17,"), ("overlap = 3", "overlap = 4"), ("user.geo", "user.land")],
)
def test_hash_changes_with_the_meaning_of_parameters(before: str, after: str) -> None:
    """An edge, the shape or a name gives another hash."""
    assert parse_schema(TEXT.replace(before, after)).hash != SCHEMA.hash


MISTAKES = [
    ("version = 1", "version = 2", "version"),
    ("version = 1", "version = true", "version"),
    ("version = 1", "", "version"),
    ("version = 1", "version =", "features.toml"),
    ("version = 1", "version = 1\ncolour = 2", "colour"),
    ("version = 1", "version = 1\nuser = 3", "features.toml"),
    ('"multi"\n[user.age]', '"many"\n[user.age]', "user.interest.kind"),
    ('"multi"\n[user.age]', "[1]\n[user.age]", "user.interest.kind"),
    ("[user.geo]", "[user.geo]\nedges = [1]", "user.geo.edges"),
    ("[user.geo]", "[user.geo]\nedge = [1]", "user.geo.edge"),
    ("[user.geo]", '[user."1 geo"]', "user.1 geo"),
    ("edges = [18, 25.5, 40]", "", "user.age.edges"),
    ("edges = [18, 25.5, 40]", "edges = []", "user.age.edges"),
    ("edges = [18, 25.5, 40]", "edges = [18, 40, 25.5]", "user.age.edges"),
    ("edges = [18, 25.5, 40]", "edges = [18, 18]", "user.age.edges"),
    ("edges = [18, 25.5, 40]", "edges = [18, nan]", "user.age.edges"),
    ("edges = [18, 25.5, 40]", 'edges = ["18"]', "user.age.edges"),
    ("variance = 1.0", "variance = 0.0", "ad.creative.variance"),
    ("variance = 1.0", "variance = -1", "ad.creative.variance"),
    ("variance = 1.0", 'variance = "1"', "ad.creative.variance"),
    ("overlap = 3", "overlap = 0", "model.overlap"),
    ("overlap = 3", "overlap = 3.0", "model.overlap"),
    ("overlap = 3", "overlap = true", "model.overlap"),
    ("alone = 2", "alone = 65", "model.alone"),
    ("alone = 2", "alone = -1", "model.alone"),
    ("alone = 2", "alne = 2", "model.alne"),
    ("alone = 2", "alone = 2\np_min = 0.5\np_max = 0.4", "model.p_min"),
    ("alone = 2", "alone = 2\np_max = 1.0", "model.p_max"),
    ("alone = 2", 'alone = 2\nstep = "newton"', "model.step"),
    ("alone = 2", "alone = 2\nstep_size = inf", "model.step_size"),
    ("alone = 2", "alone = 2\n[gate]\nviolation_limit = 0.5", "gate.violation_limit"),
    ("alone = 2", "alone = 2\n[gate]\nlimit = 0.5", "gate.limit"),
    ("[model]", "[modell]", "modell"),
]


@pytest.mark.parametrize(("before", "after", "field"), MISTAKES)
def test_a_mistake_in_the_file_is_named(before: str, after: str, field: str) -> None:
    """Each mistake is refused with the field it is in, the limit and a remedy."""
    assert before in TEXT
    with pytest.raises(SchemaInvalid) as caught:
        parse_schema(TEXT.replace(before, after, 1))
    assert caught.value.field == field
    assert caught.value.limit
    assert caught.value.remedy


@pytest.mark.parametrize("side", ["user", "ad"])
def test_a_side_without_features_is_refused(side: str) -> None:
    """Both sides need at least one feature."""
    only = f'version = 1\n[{"ad" if side == "user" else "user"}.x]\nkind = "categorical"\n'
    with pytest.raises(SchemaInvalid) as caught:
        parse_schema(only)
    assert caught.value.field == side


def test_vectors_past_the_limit_are_refused() -> None:
    """Sixty user features with a large overlap would make vectors of more than 8192 floats."""
    tables = "".join(f'[user.f{i}]\nkind = "categorical"\n' for i in range(60))
    text = f'version = 1\n{tables}[ad.x]\nkind = "categorical"\n[model]\noverlap = 8\n'
    with pytest.raises(SchemaInvalid, match="dimensions"):
        parse_schema(text)


def test_a_missing_file_is_named() -> None:
    """The error carries the path that was asked for."""
    with pytest.raises(SchemaInvalid, match=r"nowhere\.toml"):
        load_schema(Path("nowhere.toml"))


@pytest.mark.parametrize("spelled", [7, 7.0, "7"])
def test_a_number_and_its_digits_are_one_value(spelled: object) -> None:
    """JSON 7, 7.0 and "7" are the same value."""
    assert canonical(GEO, spelled) == "7"


@pytest.mark.parametrize("missing", [None, "", []])
def test_missing_is_a_value_of_its_own(missing: object) -> None:
    """None, the empty text and the empty list all mean missing, also for a numeric feature."""
    assert canonical(GEO, missing) == canonical(AGE, missing) == ""


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (False, "false"), (1.5, "1.5")])
def test_other_scalars_have_their_json_text(value: object, text: str) -> None:
    """Booleans and fractions are written as JSON writes them."""
    assert canonical(GEO, value) == text


@given(WORDS)
def test_text_is_normalised(text: str) -> None:
    """Composed and decomposed spellings of the same text are one value."""
    assert canonical(GEO, unicodedata.normalize("NFD", text)) == canonical(
        GEO, unicodedata.normalize("NFC", text)
    )


@pytest.mark.parametrize(
    "value", [[1], {"a": 1}, float("nan"), float("inf"), "\ud800", "x" * 1001, 10**400]
)
def test_a_categorical_feature_refuses_what_is_not_one_scalar(value: object) -> None:
    """Lists, objects, non-finite numbers, broken or endless text are refused."""
    with pytest.raises(FeatureValueInvalid, match=r"user\.geo"):
        canonical(GEO, value)


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(-5, "b0"), (17.99, "b0"), (18, "b1"), ("18", "b1"), (25.5, "b2"), (40, "b3"), (1e9, "b3")],
)
def test_edges_are_left_closed(value: object, bucket: str) -> None:
    """A value equal to an edge belongs to the bucket above it."""
    assert canonical(AGE, value) == bucket


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_buckets_keep_the_order_of_numbers(one: float, other: float) -> None:
    """A larger number is never in a lower bucket."""
    low, high = sorted((one, other))
    assert int(canonical(AGE, low)[1:]) <= int(canonical(AGE, high)[1:])


@pytest.mark.parametrize("value", ["young", "nan", "1_8", True, [18], "1e999", 10**400])
def test_a_numeric_feature_refuses_what_is_not_a_number(value: object) -> None:
    """Words, non-finite numbers and lists have no bucket."""
    with pytest.raises(FeatureValueInvalid, match=r"user\.age"):
        canonical(AGE, value)


@given(WORDS)
def test_hash_is_the_documented_one(text: str) -> None:
    """xxh3-64 of the full name, NUL and text, read as a signed integer."""
    digest = xxhash.xxh3_64(b"user.geo\0" + text.encode()).digest()
    assert value_hash(GEO, text) == int.from_bytes(digest, "big", signed=True)


def test_hash_of_a_known_value_never_changes() -> None:
    """Snapshots on disk hold these numbers: another hash would orphan them."""
    assert value_hash(GEO, "us") == -4236187477930230251
    assert value_hash(GEO, "us") != value_hash(Feature("ad", "geo", "categorical"), "us")


def _by_hand(values: dict[str, object], schema: Schema = SCHEMA) -> list[int]:
    ids: list[int] = []
    for feature in schema.user:
        value = values.get(feature.name)
        items = value if isinstance(value, list) else [value]
        texts = {canonical(feature, item) for item in items if item not in (None, "")} or {""}
        ids += sorted(value_hash(feature, text) for text in texts)
    return ids


@given(USERS)
def test_encoder_hashes_each_value_by_the_rule(values: dict[str, object]) -> None:
    """The encoder with its caches gives what canonical and value_hash give."""
    encoder = Encoder(SCHEMA)
    for _ in range(2):
        encoded = encoder.encode_user(values)
        assert encoded.ids.tolist() == _by_hand(values)
        assert int(encoded.counts.sum()) == len(encoded.ids)


@given(st.lists(SCALARS, max_size=8), st.randoms())
def test_multiple_values_have_no_order(values: list[object], random: object) -> None:
    """Order and repeats of a multi-valued feature change nothing."""
    encoder, shuffled = Encoder(SCHEMA), [*values, *values]
    random.shuffle(shuffled)
    one, other = (encoder.encode_user({"interest": given}) for given in (values, shuffled))
    assert one.ids.tolist() == other.ids.tolist()


def test_true_and_one_stay_apart_in_the_cache() -> None:
    """Python holds True equal to 1; the encoder does not."""
    encoder = Encoder(SCHEMA)
    ids = [encoder.encode_user({"geo": value}).ids[0] for value in (1, True, 1, "true")]
    assert ids[0] == ids[2] != ids[1] == ids[3]


def test_an_unknown_name_is_refused() -> None:
    """A feature that the schema lacks is an error that names it."""
    with pytest.raises(FeatureUnknown, match=r"user\.colour"):
        Encoder(SCHEMA).encode_user({"geo": None, "colour": "red"})


def test_too_many_values_are_refused() -> None:
    """A multi-valued feature holds at most 255 values."""
    with pytest.raises(FeatureValueInvalid, match="255"):
        Encoder(SCHEMA).encode_user({"interest": list(range(256))})


def test_ids_become_features_where_the_schema_declares_them() -> None:
    """Of creative, campaign and advertiser this schema declares only creative."""
    ad = Ad(42, 7, 3, 100, features={"category": ["a", "b"]})
    assert Encoder(SCHEMA).ad_values(ad) == {"category": ["a", "b"], "creative": 42}


@given(st.lists(st.tuples(USERS, ADS), max_size=6))
def test_unpack_reverses_pack(rows: list[tuple[dict[str, object], dict[str, object]]]) -> None:
    """Packed decisions come back as the CSR block of the same encoded rows."""
    encoder = Encoder(SCHEMA)
    users = [encoder.encode_user(user) for user, _ in rows]
    ads = [encoder.encode_ad(ad) for _, ad in rows]
    blobs = [pack(user, ad) for user, ad in zip(users, ads, strict=True)]
    for got, side in zip(unpack(SCHEMA, blobs), (users, ads), strict=True):
        features = len(SCHEMA.user if side is users else SCHEMA.ad)
        wanted = stack(side, features)
        assert got.ids.tolist() == wanted.ids.tolist()
        assert got.ptr.tolist() == wanted.ptr.tolist()
        assert (len(got), got.features) == (len(rows), features)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"0" * 8, lambda _: b""])
def test_a_blob_of_another_schema_is_named(change: object) -> None:
    """A misfit among packed rows is refused with its position."""
    encoder = Encoder(SCHEMA)
    good = pack(encoder.encode_user({}), encoder.encode_ad({}))
    with pytest.raises(FeatureValueInvalid, match=r"features\[1\]"):
        unpack(SCHEMA, [good, change(good), good])


def test_a_count_of_zero_is_refused() -> None:
    """Missing is a value, so a count of 0 cannot have been packed."""
    encoder = Encoder(SCHEMA)
    good = pack(encoder.encode_user({}), encoder.encode_ad({}))
    with pytest.raises(FeatureValueInvalid, match=r"features\[0\]"):
        unpack(SCHEMA, [b"\0\2" + good[2:]])
