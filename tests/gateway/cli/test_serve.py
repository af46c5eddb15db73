"""`serve` and `demo` before anything is started: ports, banner, and what is refused. The rest is end-to-end."""

import shlex
import socket
from pathlib import Path

import pytest

from gateway.cli.app import run
from gateway.cli.banner import banner, notice_line
from gateway.cli.demo import Addresses, clean
from gateway.cli.ports import PortTaken, free_port
from gateway.config import load
from gateway.supervisor import Notice, NoticeKind

LOOPBACK = "127.0.0.1"


def exit_code(*argv: str) -> int:
    try:
        return run(argv)
    except SystemExit as ending:
        return int(ending.code or 0)


def test_a_taken_port_is_found_out_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1 is taken"):
            free_port(LOOPBACK, port, wait_s=0.0)


def test_a_free_port_is_taken_as_wished_and_zero_becomes_one() -> None:
    port = free_port(LOOPBACK, 0)

    assert port > 0
    assert free_port(LOOPBACK, port) == port


def test_serve_on_a_taken_port_names_the_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        ports = ["--control-port", str(taken.getsockname()[1]), "--gateway-port", "0"]

        assert exit_code("serve", "--data-dir", str(tmp_path), *ports) == 69

    assert "--control-port PORT" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_serve_with_a_bad_configuration_tells_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "bad.toml"
    config.write_text('mode = "papr"\n[server]\ngateway_port = 99999\n')

    assert exit_code("serve", "--config", str(config), "--data-dir", str(tmp_path / "data")) == 78

    said = capsys.readouterr().err
    assert "2 problems" in said and "mode" in said and "server.gateway_port" in said
    assert not (tmp_path / "data").exists()


def test_options_are_settings_and_are_checked_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("serve", "--redis-url", "redis://127.0.0.1:1") == 78

    assert "with redis_url the tier must be said" in capsys.readouterr().err


def test_the_banner_says_mode_addresses_data_and_what_to_type() -> None:
    settings = load(None, {"RISK_GATEWAY_SERVER__GATEWAY_PORT": "6001"})

    shown = banner(settings, Path("/srv/data"), None).plain

    assert "PAPER  no real money" in shown
    assert "127.0.0.1:6001" in shown and "127.0.0.1:50052" in shown
    assert "/srv/data" in shown
    assert "risk-gateway check SYMBOL buy QUANTITY --account NAME --explain --address 127.0.0.1:6001" in shown
    assert "risk-gateway stop --address 127.0.0.1:6001" in shown
    assert "none armed, so nothing trades" in shown


def test_the_banner_keeps_the_stores_password_to_itself() -> None:
    settings = load(
        None,
        {
            "RISK_GATEWAY_STORE__REDIS_URL": "redis://user:hunter2@db.internal:6380/0",
            "RISK_GATEWAY_STORE__TIER": "single",
        },
    )

    shown = banner(settings, Path("data"), None).plain

    assert "redis://db.internal:6380/0  (tier single)" in shown
    assert "hunter2" not in shown


def test_a_notice_is_one_plain_line() -> None:
    died = Notice(NoticeKind.DIED, "worker", detail="exit status 1; starts again in 0.1 s")

    assert notice_line(Notice(NoticeKind.READY, "gateway", 4711)) == "gateway ready (pid 4711)"
    assert notice_line(died) == "worker died: exit status 1; starts again in 0.1 s"


def test_a_demo_never_sees_a_store_that_is_set_for_real_work() -> None:
    environment = {"RISK_GATEWAY_STORE__REDIS_URL": "redis://live", "RISK_GATEWAY_MODE": "live", "PATH": "/bin"}

    assert clean(environment) == {"PATH": "/bin"}


def test_commands_shown_name_addresses_only_where_they_are_unusual() -> None:
    usual = Addresses("127.0.0.1:50051", "127.0.0.1:50052").commands("A", Path("data"))
    other = Addresses("127.0.0.1:7001", "127.0.0.1:7002").commands("A", Path("data"))

    assert not any("127.0.0.1" in line for line in usual)
    assert all("127.0.0.1:7" in line or "--data-dir data" in line for line in other)


def test_every_command_shown_can_be_typed(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind((LOOPBACK, 0))
        address = f"{LOOPBACK}:{nobody.getsockname()[1]}"

        for command in Addresses(address, address).commands("ALPHA", tmp_path):
            more = {"resume": ["--yes"], "watch": ["--once"]}.get(command.split()[0], [])
            code = 2 if command.startswith("log") else 69
            assert exit_code(*shlex.split(command), *more) == code, command  # nobody answers, and nothing worse
