"""Settings come from the environment, are bounded, and a wrong one is refused at start by its name.

``docs/settings.md`` is written from this file (``power-interpreter settings``); a contract test keeps them the same.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_VISIBLE_ASCII = re.compile(r"[!-~]{1,512}")


class SettingsError(Exception):
    """The environment holds values that cannot be used. ``problems``: one line each, by name, without secrets."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _key(value: SecretStr) -> SecretStr:
    if not _VISIBLE_ASCII.fullmatch(value.get_secret_value()):
        raise ValueError("not 1 to 512 visible ASCII characters")
    return value


def _database_url(value: SecretStr) -> SecretStr:
    if urlsplit(value.get_secret_value()).scheme not in {"postgresql", "postgres"}:
        raise ValueError("not a Postgres url")
    return value


def _web_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("not a plain http(s) url")
    return value.rstrip("/")


def _origin(value: str) -> str:
    if urlsplit(_web_url(value)).path not in {"", "/"}:
        raise ValueError("an origin has no path")
    return value.rstrip("/").lower()


def _network(value: str) -> str:
    return str(ipaddress.ip_network(value, strict=False))


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _absolute(value: Path) -> Path:
    return Path(os.path.abspath(value.expanduser()))  # noqa: PTH100 - resolve() would follow links, and links may move


_Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
_Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_split)]
_Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_split)]
_Secret = Annotated[SecretStr, AfterValidator(_key)]
_Url = Annotated[str, AfterValidator(_web_url)]
_Level = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)]
_Folder = Annotated[Path, AfterValidator(_absolute)]


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "power-interpreter"


def _default_sandbox_env() -> Path:
    return Path(sys.prefix).parent / ".venv-sandbox"


class Settings(BaseSettings):
    """Every setting; the environment variable is the field's name in capitals. An empty variable counts as unset."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True)

    api_key: _Secret | None = Field(
        default=None,
        description="The first principal's key (an administrator). Unset: made at the first start and kept in "
        "DATA_DIR/api-key, mode 0600.",
    )
    database_url: Annotated[SecretStr, AfterValidator(_database_url)] | None = Field(
        default=None,
        description="Postgres to use, postgresql://user:password@host/name. Unset: an embedded one in DATA_DIR.",
    )
    database_pool_size: int = Field(default=10, ge=2, le=200, description="Most connections to Postgres.")
    public_base_url: _Url | None = Field(
        default=None, description="How clients reach this server, for links. Unset: http://HOST:PORT."
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on. 0.0.0.0 is every address.")
    port: int = Field(default=8080, ge=0, le=65535, description="TCP port to listen on; 0 takes any free one.")
    data_dir: _Folder = Field(
        default_factory=_default_data_dir,
        description="Where this server keeps its data: the embedded Postgres and the key. One server at a time.",
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = Field(
        default="INFO", description="Least level that is logged."
    )
    log_format: Literal["auto", "plain", "json"] = Field(
        default="auto", description="plain or json, one line a record. auto: plain on a terminal, json elsewhere."
    )

    max_execution_time: int = Field(
        default=300, ge=1, le=86_400, description="Longest time for one execution, seconds."
    )
    max_memory_mb: int = Field(default=4096, ge=256, le=1 << 20, description="Memory of one sandbox, MiB.")
    max_file_size_mb: int = Field(default=500, ge=1, le=10_240, description="Largest file that may be uploaded, MiB.")
    max_concurrent_jobs: int = Field(
        default=4, ge=1, le=1000, description="Jobs that run at the same time; others wait."
    )
    job_timeout: int = Field(default=1800, ge=1, le=86_400, description="Longest time for one job, seconds.")
    sandbox_file_max_mb: int = Field(
        default=50, ge=1, le=2048, description="Largest file of the code's that is stored and linked, MiB."
    )
    sandbox_file_ttl_hours: float = Field(
        default=24, gt=0, le=8760, description="How long stored files and their links last, hours."
    )

    sandbox_env: _Folder = Field(
        default_factory=_default_sandbox_env,
        description="The virtual environment that sandboxes see; interpreter-sandbox[runtime] is installed in it.",
    )
    bwrap: str = Field(
        default="bwrap", min_length=1, description="The bubblewrap program: a path, or a name to look up in PATH."
    )
    max_sandboxes: int = Field(default=16, ge=1, le=10_000, description="Sandboxes that may live at the same time.")
    warm_pool: int = Field(default=1, ge=0, le=1000, description="Sandboxes kept ready before anyone asks.")
    idle_timeout: int = Field(
        default=1800, ge=1, le=604_800, description="An unused session gives its sandbox back after this, seconds."
    )
    workspace_mb: int = Field(default=1024, ge=16, le=1 << 20, description="Disk of one sandbox's workspace, MiB.")
    max_sessions: int = Field(default=100, ge=1, le=100_000, description="Sessions that one principal may have.")

    allowed_origins: _Origins = Field(
        default=(),
        description="Browser origins allowed besides the server's own, comma-separated, as https://app.example.com.",
    )
    allowed_hosts: _Names = Field(
        default=(), description="Host names answered to besides PUBLIC_BASE_URL's, HOST and localhost, comma-separated."
    )
    trusted_proxies: _Networks = Field(
        default=(),
        description="Addresses or networks whose X-Forwarded-For is believed, comma-separated. Unset: nobody's.",
    )
    body_timeout: int = Field(
        default=20, ge=1, le=3600, description="Longest pause while a request's body is sent, seconds."
    )
    oauth_issuer: _Url | None = Field(
        default=None, description="OAuth 2.1 authorization server whose access tokens are accepted besides API keys."
    )
    oauth_audience: str | None = Field(
        default=None,
        min_length=1,
        description="The audience that such a token must name. Unset: PUBLIC_BASE_URL + /mcp.",
    )

    azure_tenant_id: str | None = Field(
        default=None, min_length=1, description="Microsoft Entra tenant, for Microsoft 365."
    )
    azure_client_id: str | None = Field(default=None, min_length=1, description="Application id there.")
    azure_client_secret: SecretStr | None = Field(default=None, description="That application's secret.")

    @property
    def base_url(self) -> str:
        """PUBLIC_BASE_URL, or where the server listens; never ends with a slash."""
        if self.public_base_url:
            return self.public_base_url
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}"

    @property
    def runtime_dir(self) -> Path:
        """Short folder for Unix sockets (their paths end at 107 characters); one for each DATA_DIR, mode 0700."""
        name = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:8]
        if os.getuid() == 0:
            return Path("/run/power-interpreter") / name
        if base := os.environ.get("XDG_RUNTIME_DIR"):
            return Path(base) / "power-interpreter" / name
        return Path(f"/tmp/power-interpreter-{os.getuid()}") / name  # noqa: S108 - owner and mode are checked at start


def load_settings(**overrides: Any) -> Settings:
    """Read the environment. Raises :class:`SettingsError` that names every wrong value and what is allowed."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        # Several validators of one union may each complain about the same variable: one line for each name.
        names = dict.fromkeys(str(problem["loc"][0]) for problem in error.errors() if problem["loc"])
        raise SettingsError([_problem(name) for name in names]) from None


_SECRETS = frozenset({"api_key", "database_url", "azure_client_secret"})


def _problem(name: str) -> str:
    value = "its value" if name in _SECRETS else repr(os.environ.get(name.upper(), "its value")[:80])
    return f"{name.upper()}: {value} is not allowed; allowed: {allowed(name)}"


_ALLOWED = {
    "api_key": "1 to 512 visible ASCII characters",
    "database_url": "postgresql://user:password@host:port/database",
    "public_base_url": "an http:// or https:// url without query",
    "oauth_issuer": "an http:// or https:// url without query",
    "allowed_origins": "origins such as https://app.example.com, comma-separated",
    "allowed_hosts": "host names, comma-separated",
    "trusted_proxies": "IP addresses or networks such as 10.0.0.0/8, comma-separated",
}


def allowed(name: str) -> str:
    """What a setting may be, for people: bounds come from the field itself."""
    field = Settings.model_fields[name]
    if name in _ALLOWED:
        return _ALLOWED[name]
    bounds = {key: getattr(rule, key) for rule in field.metadata for key in ("ge", "gt", "le") if hasattr(rule, key)}
    if bounds:
        kind = "a whole number" if field.annotation is int else "a number"
        low = f"from {bounds['ge']}" if "ge" in bounds else f"above {bounds['gt']}"
        return f"{kind} {low} to {bounds['le']}"
    choices = getattr(field.annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return ", ".join(choices)
    return "a path" if field.annotation is Path else "a text that is not empty"


_DEFAULTS = {
    "data_dir": "`$XDG_DATA_HOME/power-interpreter`, else `~/.local/share/power-interpreter`",
    "sandbox_env": "`.venv-sandbox` beside the server's own environment",
}


def markdown_table() -> str:
    """The table of ``docs/settings.md``."""
    lines = ["| Variable | Default | Allowed | Meaning |", "| --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        value = field.default if not isinstance(field.default, tuple) else ",".join(field.default)
        default = _DEFAULTS.get(name) or (f"`{value}`" if value not in {None, ""} else "unset")
        lines.append(f"| `{name.upper()}` | {default} | {allowed(name)} | {field.description} |")
    return "\n".join(lines) + "\n"
