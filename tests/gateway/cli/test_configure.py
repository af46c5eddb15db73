"""`config`: what is written can be used, and every fault of a file is told at once with its path."""

import json
from pathlib import Path

import pytest

from gateway.cli.app import run
from gateway.cli.configure import findings_of


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return tmp_path / "risk-gateway.toml"


def exit_code(*argv: str) -> int:
    try:
        return run(argv)
    except SystemExit as ending:
        return int(ending.code or 0)


def problems_of(path: Path, text: str) -> tuple[str, ...]:
    path.write_text(text)
    return findings_of(path, {}).problems


def test_what_init_writes_validates(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("config", "init", str(config_file)) == 0
    assert exit_code("config", "validate", str(config_file)) == 0

    assert "mode paper, tier embedded" in capsys.readouterr().err


def test_init_overwrites_only_by_force(config_file: Path) -> None:
    config_file.write_text("mine")

    assert exit_code("config", "init", str(config_file)) == 2
    assert config_file.read_text() == "mine"

    assert exit_code("config", "init", str(config_file), "--force") == 0
    assert config_file.read_text() != "mine"


def test_all_problems_are_told_at_once(config_file: Path) -> None:
    problems = problems_of(
        config_file,
        '[server]\nhots = "x"\n'
        '[[limit]]\nmeasure = "leverage"\nscope = "account"\nlimt = 2.0\nlimit = 2.0\n'
        '[[limit]]\nmeasure = "var_98"\nscope = "account"\nlimit = 0.05\n'
        '[[limit]]\nmeasure = "leverage"\nscope = "account"\nlimit = 2.0\nwarn = 3.0\n',
    )

    assert [problem.split(":")[0] for problem in problems] == [
        "server.hots",
        "limit[0].limt",
        "limit[1].measure",
        "limit[2].warn",
    ]
    assert "did you mean 'host'?" in problems[0]
    assert "did you mean 'limit'?" in problems[1]


def test_rows_that_contradict_each_other_are_told_once_each_row_is_right(config_file: Path) -> None:
    row = '[[limit]]\nmeasure = "leverage"\nscope = "account"\nlimit = 2.0\n'

    problems = problems_of(config_file, row + row)

    assert problems == ("limit[1]: same measure, scope, match, account, action and mode as limit[0]",)


def test_a_policy_that_nobody_knows_is_a_problem(config_file: Path) -> None:
    (problem,) = problems_of(config_file, "[limits]\nmarket_slipage = 0.01\n")

    assert problem.startswith("limits") and "market_slipage" in problem


def test_what_is_no_toml_is_told_once(config_file: Path) -> None:
    (problem,) = problems_of(config_file, "mode = paper")

    assert "not valid TOML" in problem


def test_a_set_under_which_nothing_can_trade_is_warned_of(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config_file.write_text('[[limit]]\nmeasure = "position"\nscope = "symbol"\nlimit = 100\n')

    assert exit_code("config", "validate", str(config_file)) == 0
    said = capsys.readouterr().err
    assert "no limit on size" in said and "no limit on value" in said and "no limit on position" not in said


def test_a_problem_ends_with_the_code_of_a_bad_configuration(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config_file.write_text('mode = "papr"\n')

    assert exit_code("config", "validate", str(config_file)) == 78
    assert "1 problem\n  mode: " in capsys.readouterr().err


def test_a_set_in_shadow_is_checked_too(config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "next.toml").write_text('[[limit]]\nmeasure = "leverge"\nscope = "account"\nlimit = 2.0\n')

    (problem,) = problems_of(config_file, '[limits]\nshadow = "next.toml"\n')

    assert problem.startswith(f"{tmp_path / 'next.toml'}: limit[0].measure: unknown measure 'leverge'")


def test_a_set_in_shadow_has_none_of_its_own(config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "next.toml").write_text('[limits]\nshadow = "risk-gateway.toml"\n')

    (problem,) = problems_of(config_file, '[limits]\nshadow = "next.toml"\n')

    assert "limits.shadow" in problem


def test_rows_in_shadow_let_nothing_trade(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config_file.write_text('[[limit]]\nmeasure = "position"\nscope = "symbol"\nlimit = 100\nmode = "shadow"\n')

    assert exit_code("config", "validate", str(config_file)) == 0
    assert "no limit on position" in capsys.readouterr().err


def test_a_missing_file_is_a_problem_too(tmp_path: Path) -> None:
    assert exit_code("config", "validate", str(tmp_path / "none.toml")) == 78


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("config", "schema") == 0

    assert "server" in json.loads(capsys.readouterr().out)["properties"]
