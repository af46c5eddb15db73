"""`risk-gateway serve` on one machine: a supervisor, a private store, and a process per role.

What is put together here starts processes and imports no gRPC; what runs inside each is put together in `main`.
"""

import hashlib
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.limits import Limit, LimitError, LimitSet, faults_of, limit_set_from, nearest
from engine.measures import MEASURES
from gateway.config import ConfigError, Settings, load
from gateway.embedded import DataDirLock, EmbeddedStore
from gateway.supervisor import Child, Notice, Supervisor

ROLES = ("control", "worker", "gateway")
"""They start together. The gateway opens when control has armed the limits: see `main.limits_armed`."""

STORE_URL = "RISK_GATEWAY_STORE_URL"
"""Where the supervisor tells its processes to find the store."""

APPROVAL_KEY_BYTES = 32


def run_supervised(
    settings: Settings,
    config_path: Path | None,
    data_dir: Path,
    notify: Callable[[Notice], None],
    environment: Mapping[str, str],
    runtime_dir: Path | None = None,
) -> int:
    """Serve everything from this machine until told to stop; the exit status. Raises ConfigError, StoreError."""
    configured_limits(settings)
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with DataDirLock(data_dir), tempfile.TemporaryDirectory(prefix="rg-") as own:
        place = runtime_dir or Path(own)
        url = settings.store.redis_url
        store_url = url or f"unix://{place / 'valkey.sock'}"
        children = [_child(role, settings, config_path, data_dir, store_url) for role in ROLES]
        start_store = None if url else lambda: EmbeddedStore.start(data_dir, place)
        return Supervisor(children, data_dir, environment, notify, start_store).run()


def _child(role: str, settings: Settings, config_path: Path | None, data_dir: Path, store_url: str) -> Child:
    """A role's process. What the command line changed in the settings travels in the environment."""
    argv = [sys.executable, "-m", "gateway", "serve", "--role", role, "--data-dir", str(data_dir)]
    argv += ["--config", str(config_path)] if config_path is not None else []
    server = settings.server
    return Child(
        role,
        tuple(argv),
        {
            STORE_URL: store_url,
            "RISK_GATEWAY_MODE": settings.mode,
            "RISK_GATEWAY_SERVER__HOST": server.host,
            "RISK_GATEWAY_SERVER__GATEWAY_PORT": str(server.gateway_port),
            "RISK_GATEWAY_SERVER__CONTROL_PORT": str(server.control_port),
            # Small products of a few dozen rows: BLAS threads cost more than they bring, and steal the other core.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
    )


@dataclass(frozen=True, slots=True)
class ConfiguredLimits:
    """What a configuration would have armed."""

    limits: LimitSet
    shadow: LimitSet | None

    @property
    def hash(self) -> str:
        """What control remembers of the last configuration that it armed."""
        shadow = b"" if self.shadow is None else b"\n" + self.shadow.encode()
        return hashlib.blake2b(self.limits.encode() + shadow, digest_size=16).hexdigest()


def configured_limits(settings: Settings) -> ConfiguredLimits:
    """The validated limits of a configuration, and those that it names for shadow. Raises ConfigError naming each
    fault."""
    path = settings.limits.shadow
    if path is None:
        return ConfiguredLimits(limits_of(settings), None)
    beside = load(path, {})
    if beside.limits.shadow is not None:
        raise ConfigError(str(path), ["limits.shadow: a set in shadow has none of its own"])
    return ConfiguredLimits(limits_of(settings), limits_of(beside, str(path)))


def limits_of(settings: Settings, source: str = "limits") -> LimitSet:
    """The validated limit set of a configuration. Raises ConfigError naming each fault."""
    policy = {"valid_for_default_s": settings.approval.valid_for_default_s, **settings.limits.policy}
    problems = limit_problems(settings.limit_rows, policy)
    if problems:
        raise ConfigError(source, problems)
    return limit_set_from(settings.limit_rows, policy)


def limit_problems(rows: Sequence[Mapping[str, Any]], policy: Mapping[str, Any]) -> tuple[str, ...]:
    """Every problem of limit rows and policy, each with its path; where there is none, those of the set as a whole."""
    found = [problem for index, row in enumerate(rows) for problem in _row_problems(index, row)]
    found += _set_problems((), policy)
    return tuple(found or _set_problems(rows, policy))


def _row_problems(index: int, row: Mapping[str, Any]) -> list[str]:
    known = Limit.__struct_fields__
    unknown = [f"limit[{index}].{key}: unknown key{nearest(key, known)}" for key in row if key not in known]
    rest = {key: value for key, value in row.items() if key in known}
    return unknown + [problem.replace("limit[0]", f"limit[{index}]", 1) for problem in _set_problems((rest,), {})]


def _set_problems(rows: Sequence[Mapping[str, Any]], policy: Mapping[str, Any]) -> list[str]:
    try:
        return [str(fault) for fault in faults_of(limit_set_from(rows, policy), MEASURES)]
    except LimitError as error:
        return [str(error)]


def approval_key(settings: Settings, data_dir: Path | None) -> bytes:
    """The key that signs approvals: the configured file's, else one of this data directory, else of this process."""
    path = settings.approval.key_file
    if path is not None:
        key = path.read_bytes().strip()
        if len(key) < APPROVAL_KEY_BYTES:
            raise ConfigError(str(path), [f"expected a key of at least {APPROVAL_KEY_BYTES} bytes, found {len(key)}"])
        return key
    if data_dir is None:
        return secrets.token_bytes(APPROVAL_KEY_BYTES)
    return _kept_key(data_dir / "approval.key")


def _kept_key(path: Path) -> bytes:
    """The key in `path`, made on first use. Linked into place whole: two processes that start together agree on one."""
    if not path.exists():
        draft = path.with_suffix(f".{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(APPROVAL_KEY_BYTES))
        try:
            os.link(draft, path)
        except FileExistsError:
            return path.read_bytes()  # another process was faster, and its key is the one
        finally:
            draft.unlink()
    return path.read_bytes()
