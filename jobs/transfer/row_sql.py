"""The SQL of a file's rows: when a field is fit, and the columns of an event made of them.

It reads fields that are text, as the view `checked` of `jobs.transfer.event_file` has them.
"""

from __future__ import annotations

from models.types import MAX_ID

_UUID = "'[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}'"
_WHOLE = {
    "ad_id": (1, MAX_ID),
    "slot": (0, 32_767),
    "catalog_version": (0, MAX_ID),
    "price_micros": (0, MAX_ID),
}

FIRST_OF_KEY = """
QUALIFY row_number() OVER (PARTITION BY time_ms, decision_high, decision_low, slot, type) = 1
"""

TIME = """
CASE WHEN regexp_full_match(decided_at, '[0-9]+(\\.0)?') THEN try_cast(decided_at AS BIGINT)
ELSE epoch_ms(try_cast(decided_at AS TIMESTAMPTZ)) END
"""


def _whole(field: str, low: int, high: int) -> str:
    number = f"try_cast({field} AS BIGINT)"
    digits = f"regexp_full_match({field}, '[0-9]+([.]0)?')"  # some tools make every number a float
    return f"{digits} AND {number} BETWEEN {low} AND {high}"


CHECKS = {
    "decided_at": (
        "time_ms BETWEEN 100000000000 AND 100000000000000",
        "epoch milliseconds or RFC 3339, after 1973",
    ),
    **{
        field: (_whole(field, low, high), f"a whole number from {low} to {high}")
        for field, (low, high) in _WHOLE.items()
    },
    "type": (
        "type IN ('impression', 'click', 'conversion', 'close')",
        "one of impression, click, conversion, close",
    ),
    "clicked": ("try_cast(clicked AS DOUBLE) IN (0, 1)", "0 or 1"),
    "decision_id": (f"decision_id = '' OR regexp_full_match(decision_id, {_UUID})", "a UUID"),
    "snapshot_id": (f"regexp_full_match(snapshot_id, {_UUID})", "a UUID"),
    "propensity": (
        # Of the precision in which it is stored: there a smaller one is zero.
        "try_cast(propensity AS FLOAT) > 0 AND try_cast(propensity AS DOUBLE) <= 1",
        "above 0 as a float of 32 bits, at most 1",
    ),
    "placement": (
        "length(placement) <= 32 AND NOT contains(placement, chr(0))",
        "at most 32 characters, none of them NUL",
    ),
    "value_micros": (
        f"value_micros = '' OR (type = 'conversion' AND {_whole('value_micros', 0, MAX_ID)})",
        "a whole number, of a conversion alone",
    ),
    "features": (
        "regexp_full_match(features, '([0-9a-f][0-9a-f])*')",
        "the hexadecimal text of an export",
    ),
}


def columns(mark: str) -> str:
    """The columns of an event. `mark` stands for the row's features, see `_CONTENT`.

    `own` is a number of 128 bits that says what the row holds, where no decision's id is given.
    """
    return (
        "epoch_ms(time_ms)::DATE AS day, type, placement, time_ms,"
        f" {_half(_DECISION, 1)} AS decision_high, {_half(_DECISION, 17)} AS decision_low,"
        f" {_half(_SNAPSHOT, 1)} AS snapshot_high, {_half(_SNAPSHOT, 17)} AS snapshot_low,"
        " slot::SMALLINT AS slot, ad_id::BIGINT AS ad_id,"
        " catalog_version::BIGINT AS catalog_version, price_micros::BIGINT AS price_micros,"
        " propensity::DOUBLE AS propensity,"
        " coalesce(try_cast(nullif(value_micros, '') AS BIGINT), 0) AS value,"
        " value_micros <> '' AS has_value, clicked::DOUBLE = 1 AS clicked, unhex(features) AS blob,"
        " line, CASE WHEN decision_id = ''"
        f" THEN md5_number({_CONTENT.format(mark=mark)}) END AS own"
    )


_DECISION = "replace(decision_id, '-', '')"
_SNAPSHOT = "replace(snapshot_id, '-', '')"

# Of the values, not of how a file spells them; what is free text comes last.
_CONTENT = f"""
concat_ws('|', time_ms, ad_id::BIGINT, slot::SMALLINT, type, clicked::DOUBLE = 1,
lower({_SNAPSHOT}), catalog_version::BIGINT, price_micros::BIGINT, propensity::DOUBLE,
try_cast(nullif(value_micros, '') AS BIGINT), value_micros <> '', {{mark}}, placement)
"""


def _half(digits: str, start: int) -> str:
    """Sixteen of the digits of an id as a number, NULL of one that is not given."""
    return f"CAST('0x' || nullif(substr({digits}, {start}, 16), '') AS UBIGINT)"


# Rows of the same content get numbers in the file's order, so that each is an event of its own.
REPEATS = """
CREATE TEMP TABLE repeats AS
SELECT line, row_number() OVER (PARTITION BY own ORDER BY line) - 1 AS nth FROM kept
WHERE own IN (SELECT own FROM kept WHERE own IS NOT NULL GROUP BY own HAVING count(*) > 1)
"""
NUMBERED = """
UPDATE kept SET own = xor(own, repeats.nth::UHUGEINT) FROM repeats WHERE repeats.line = kept.line
"""
IDENTIFIED = """
SELECT * EXCLUDE (line, own) REPLACE (
    coalesce(decision_high, (own >> 64)::UBIGINT) AS decision_high,
    coalesce(decision_low, (own & 18446744073709551615::UHUGEINT)::UBIGINT) AS decision_low
) FROM kept
"""
