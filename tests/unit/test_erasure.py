"""Erased values leave packed features, encoded rows, models and what training goes on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import snapshot
from models.cycle import genesis_snapshot, learn
from models.erasure import NOTHING, Erased, known_rows, without, zeroed
from models.errors import FeatureUnknown, FeatureValueInvalid
from models.features import Encoder, pack, stack, unpack, value_hash
from models.index import AdSet
from models.schema import Schema, parse_schema
from models.snapshot import Snapshot
from models.tombstone import tombstone
from models.trainer import TrainerSettings
from models.types import Batch

Draw = Callable[..., Batch]
SCHEMA = parse_schema(
    """
    version = 1
    [user.visitor]
    kind = "categorical"
    [user.interests]
    kind = "multi"
    [user.age]
    kind = "numeric"
    edges = [18, 30]
    [ad.category]
    kind = "multi"
    """
)
ENCODER = Encoder(SCHEMA)
VISITORS, INTERESTS = ["ann", "bob", None], ["golf", "chess", "jazz", "tea"]
users = st.fixed_dictionaries(
    {
        "visitor": st.sampled_from(VISITORS),
        "interests": st.lists(st.sampled_from(INTERESTS), max_size=4),
        "age": st.sampled_from([None, 7, 20, 50]),
    }
)
chosen = st.lists(
    st.sampled_from([("visitor", "ann"), *(("interests", one) for one in INTERESTS)]), unique=True
)
AD = ENCODER.encode_ad({"category": ["shoes", "hats"]})


@pytest.fixture
def trained(schema: Schema, ads: AdSet, draw: Draw) -> Snapshot:
    """A snapshot after one chunk."""
    first = genesis_snapshot(schema, ads, snapshot_id=UUID(int=1), now_ms=5)
    ids = (UUID(int=2), UUID(int=3))
    settings = TrainerSettings.of(schema)
    return learn(first, draw(300), ads, schema, settings, snapshot_ids=ids, now_ms=6).candidate


def erased_of(*values: tuple[str, str]) -> Erased:
    stones = [tombstone(SCHEMA, name, value) for name, value in values]
    return Erased({one.hash: one.missing for one in stones}, len(stones))


def cleaned(user: dict[str, object], values: list[tuple[str, str]]) -> dict[str, object]:
    """The user as it would have been had the values never been given."""
    gone = {value for _, value in values}
    interests = [one for one in user["interests"] if one not in gone]
    visitor = None if user["visitor"] in gone else user["visitor"]
    return {**user, "visitor": visitor, "interests": interests}


@given(users, chosen)
def test_packed_features_are_as_if_the_value_had_not_been_given(
    user: dict[str, object], values: list[tuple[str, str]]
) -> None:
    """Of several values the others stay; a feature without any is missing."""
    blob = pack(ENCODER.encode_user(user), AD)
    wanted = pack(ENCODER.encode_user(cleaned(user, values)), AD)
    found = erased_of(*values).blob(blob)
    assert found == wanted
    assert (found is blob) == (wanted == blob)


@given(st.lists(users, max_size=12), chosen)
def test_rows_are_as_if_the_value_had_not_been_given(
    some: list[dict[str, object]], values: list[tuple[str, str]]
) -> None:
    """Whole blocks lose values as single blobs do, and what is left is laid out as ever."""
    rows = stack([ENCODER.encode_user(user) for user in some], 3)
    wanted = stack([ENCODER.encode_user(cleaned(user, values)) for user in some], 3)
    before = rows.ids.copy()
    found = erased_of(*values).rows(rows)
    assert found.ids.tolist() == wanted.ids.tolist()
    assert found.ptr.tolist() == wanted.ptr.tolist()
    assert rows.ids.tolist() == before.tolist()


@given(users, chosen)
def test_an_encoder_that_knows_encodes_as_if_it_had_not_been_given(
    user: dict[str, object], values: list[tuple[str, str]]
) -> None:
    """A value that is sent again after its erasure is missing: it is neither used nor stored."""
    knowing = Encoder(SCHEMA, erased_of(*values).missing)
    for _ in range(2):  # the second time from what it remembers
        assert knowing.user_hashes(user) == ENCODER.user_hashes(cleaned(user, values))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_features_stay(blob: bytes) -> None:
    """Whatever is stored, looking through it neither fails nor changes what it does not hold."""
    assert erased_of(("visitor", "ann")).blob(blob) is blob


def test_the_schema_of_the_features_does_not_matter() -> None:
    """Tokens and events of an earlier schema, with other features, lose the value as well."""
    older = parse_schema(
        'version = 1\n[user.visitor]\nkind = "categorical"\n[ad.brand]\nkind = "categorical"'
    )
    encoder = Encoder(older)
    blob = pack(encoder.encode_user({"visitor": "ann"}), encoder.encode_ad({"brand": "x"}))
    wanted = pack(encoder.encode_user({}), encoder.encode_ad({"brand": "x"}))
    assert erased_of(("visitor", "ann")).blob(blob) == wanted


def test_an_ad_keeps_a_value_of_the_same_text() -> None:
    """Only the user's value is erased: hashes hold their feature's name."""
    user, ad = ENCODER.encode_user({"interests": ["golf"]}), ENCODER.encode_ad({"category": "golf"})
    found = unpack(SCHEMA, [erased_of(("interests", "golf")).blob(pack(user, ad))])[1]
    assert found.ids.tolist() == ad.ids.tolist()


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("geo", "us", FeatureUnknown),
        ("category", "shoes", FeatureUnknown),
        ("ad.category", "shoes", FeatureUnknown),
        ("age", "20", FeatureValueInvalid),
        ("visitor", "", FeatureValueInvalid),
        ("visitor", "x" * 1001, FeatureValueInvalid),
    ],
)
def test_what_is_no_persons_is_not_erased(name: str, value: str, fault: type[Exception]) -> None:
    """Features of ads, buckets of numbers and missing values are refused."""
    with pytest.raises(fault):
        tombstone(SCHEMA, name, value)


def test_a_value_is_meant_however_it_is_spelled() -> None:
    """With or without `user.`, and in any Unicode form."""
    one, other = tombstone(SCHEMA, "visitor", "Zoë"), tombstone(SCHEMA, "user.visitor", "Zoe\u0308")
    assert one == other
    assert one.hash == value_hash(SCHEMA.user[0], "Zoë")


def test_a_mapped_model_loses_a_row_and_its_file_does_not(
    tmp_path: Path, trained: Snapshot
) -> None:
    """The value scores as one that was never seen; other processes map the same file unchanged."""
    sealed = snapshot.write(tmp_path, trained)
    folder = tmp_path / str(sealed.id)
    key = int(trained.model.user_keys[0])
    erased = Erased({key: 1}, 1)
    served = snapshot.load_served(folder, sealed).model
    assert len(known_rows(served, erased)) == 1
    found = zeroed(served, erased)
    assert len(known_rows(found, erased)) == 0
    assert not found.user_latent[0].any()
    assert np.array_equal(found.user_latent[1:], served.user_latent[1:])
    assert served.user_latent[0].any()
    snapshot.verify(folder, sealed)
    assert zeroed(served, NOTHING) is served


def test_zeroing_twice_keeps_both_rows_at_zero(tmp_path: Path, trained: Snapshot) -> None:
    """A second erasure on top of the first does not bring the first one's vector back."""
    sealed = snapshot.write(tmp_path, trained)
    served = snapshot.load_served(tmp_path / str(sealed.id), sealed).model
    first, second = (int(key) for key in trained.model.user_keys[:2])
    once = zeroed(served, Erased({first: 1}, 1))
    twice = zeroed(once, Erased({first: 1, second: 1}, 2))
    assert not twice.user_latent[:2].any()
    assert once.user_latent[1].any()


def test_training_goes_on_without_the_value(trained: Snapshot) -> None:
    """Neither the state nor the probes of the next training know it; all other rows stay."""
    key = int(trained.state.user.keys[2])
    found = without(trained, Erased({key: 5}, 1))
    assert key not in found.state.user.keys
    assert len(found.state.user) == len(trained.state.user) - 1
    assert key not in found.probes.user.ids
    assert len(found.probes) == len(trained.probes)
    assert without(trained, NOTHING).state is trained.state
