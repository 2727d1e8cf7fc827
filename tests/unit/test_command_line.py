"""The command line explains itself, and its errors are one message."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from app.cli import main as cli
from app.commands.ads import parse
from app.commands.errors import ImportInvalid
from models.features import Encoder, Schema

COMMANDS = (
    [],
    ["serve"],
    ["jobs"],
    ["db"],
    ["db", "migrate"],
    ["db", "rebase"],
    ["keys"],
    ["keys", "create"],
    ["keys", "list"],
    ["keys", "revoke"],
    ["keys", "rotate"],
    ["keys", "limit"],
    ["keys", "rotate-token"],
    ["ads"],
    ["ads", "import"],
    ["replay"],
    ["demo"],
    ["dashboard"],
    ["test"],
    ["bench"],
    ["bench", "train"],
    ["bench", "serve"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: list[str]) -> None:
    """--help works on every command; those that do something show an example."""
    shown = CliRunner().invoke(cli.app, [*command, "--help"], terminal_width=200)
    assert shown.exit_code == 0, shown.output
    if command not in ([], ["keys"], ["ads"], ["bench"]):
        assert "Example" in shown.output


def test_unknown_setting_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped environment variable is named, without a traceback."""
    monkeypatch.setenv("ADSCENT_PROT", "1")
    monkeypatch.setattr("sys.argv", ["adscent", "serve"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert "ADSCENT_PROT" in error
    assert "Traceback" not in error


def test_unknown_scope_is_refused() -> None:
    """A key can only have scopes that exist."""
    shown = CliRunner().invoke(cli.app, ["keys", "create", "me", "--scope", "root"])
    assert shown.exit_code == 2
    assert "score" in shown.output


AD = b'{"id": 1, "campaign_id": 7, "bid_micros": 5, "features": {"category": ["shoes"]}}'
FILE = (
    b'{"advertiser": {"id": 3, "name": "Shoes"}}',
    b'{"campaign": {"id": 7, "advertiser_id": 3}}',
    b"",
    AD,
)


def test_file_is_read_by_kind(schema: Schema) -> None:
    """Ads, campaigns and advertisers of one file, each with its line number."""
    read = parse(FILE, Encoder(schema))
    assert [number for number, _ in read.ads.values()] == [4]
    assert read.campaigns[7][1].advertiser_id == 3
    assert read.advertisers[3][1].name == "Shoes"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{", "line 2: body: Input data was truncated"),
        (b'{"id": 1, "campaign_id": 7, "bid_micros": -5}', "line 2: bid_micros (given: -5)"),
        (b'{"campaign_id": 7, "bid_micros": 5}', "line 2: id"),
        (b'{"id": 2, "campaign_id": 7, "bid_micros": 5, "features": {"x": 1}}', "features.x"),
        (b'{"campaign": {"id": 7}}', "line 2: campaign.advertiser_id"),
        (AD, "line 2: id 1 stands in line 1 already"),
        (b"[]", "line 2: body"),
    ],
)
def test_faulty_line_is_named(schema: Schema, line: bytes, expected: str) -> None:
    """The error has the line's number, the field, the value, the limit and the remedy."""
    with pytest.raises(ImportInvalid) as raised:
        parse([AD, line], Encoder(schema))
    [fault] = raised.value.faults
    assert expected in fault


def test_all_faults_are_told_at_once(schema: Schema) -> None:
    """A file with many mistakes is not mended one run at a time; the message stays readable."""
    with pytest.raises(ImportInvalid) as raised:
        parse([b"{"] * 50, Encoder(schema))
    assert len(raised.value.faults) == 50
    assert "and 30 more" in str(raised.value)
