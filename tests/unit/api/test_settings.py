"""Settings: bounds, defaults, refusals by name, and secrets that stay secret."""

from __future__ import annotations

import os

import pytest

from interpreter_api.settings import Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine that runs the tests."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.covers("R05")
def test_the_promised_defaults() -> None:
    settings = load_settings()
    assert (settings.max_execution_time, settings.max_memory_mb, settings.max_file_size_mb) == (300, 4096, 500)
    assert (settings.max_concurrent_jobs, settings.job_timeout) == (4, 1800)
    assert (settings.sandbox_file_max_mb, settings.sandbox_file_ttl_hours) == (50, 24)
    assert settings.api_key is None
    assert settings.host == "127.0.0.1"


@pytest.mark.covers("R05")
@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "abc", "from 0 to 65535"),
        ("PORT", "70000", "from 0 to 65535"),
        ("PORT", "80.5", "from 0 to 65535"),
        ("MAX_EXECUTION_TIME", "0", "from 1 to"),
        ("MAX_EXECUTION_TIME", "1e9", "from 1 to"),
        ("MAX_MEMORY_MB", "-1", "from 256"),
        ("SANDBOX_FILE_TTL_HOURS", "nan", "above 0"),
        ("SANDBOX_FILE_TTL_HOURS", "inf", "above 0"),
        ("LOG_LEVEL", "loud", "DEBUG, INFO, WARNING, ERROR"),
        ("PUBLIC_BASE_URL", "ftp://x", "http"),
        ("PUBLIC_BASE_URL", "https://user:secret@x", "http"),
        ("ALLOWED_ORIGINS", "https://a.example, nonsense", "comma-separated"),
        ("ALLOWED_ORIGINS", "https://a.example/path", "comma-separated"),
        ("TRUSTED_PROXIES", "10.0.0.0/99", "networks"),
    ],
)
def test_a_wrong_value_is_refused_by_name_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    (problem,) = caught.value.problems
    assert problem.startswith(f"{name}: ")
    assert allowed in problem


@pytest.mark.covers("R05")
def test_every_wrong_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "MAX_SANDBOXES", "JOB_TIMEOUT"):
        monkeypatch.setenv(name, "many")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert {problem.split(":")[0] for problem in caught.value.problems} == {"PORT", "MAX_SANDBOXES", "JOB_TIMEOUT"}


@pytest.mark.attack("CR06")
@pytest.mark.parametrize(
    ("name", "value"),
    [("API_KEY", "with space"), ("API_KEY", "é" * 20), ("DATABASE_URL", "mysql://user:hunter2@host/db")],
)
def test_a_refusal_never_shows_a_secret(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"{name}: ")
    assert value not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.attack("CR06")
def test_a_repr_never_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "canary-key-123456")
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:canary-password@host/db")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "canary-azure")
    settings = load_settings()
    shown = f"{settings!r} {settings} {settings.model_dump_json()}"
    assert "canary" not in shown
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "canary-key-123456"


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "")
    monkeypatch.setenv("API_KEY", "")
    assert load_settings().port == 8080
    assert load_settings().api_key is None


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"HOST": "0.0.0.0", "PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"HOST": "::1", "PORT": "9000"}, "http://[::1]:9000"),
        ({"PUBLIC_BASE_URL": "https://code.example/"}, "https://code.example"),
    ],
)
def test_where_clients_reach_the_server(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert load_settings().base_url == url


def test_the_socket_folder_is_short_and_one_for_each_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    deep = "/very/deep" * 20
    monkeypatch.setenv("DATA_DIR", deep + "/a")
    first = load_settings().runtime_dir
    monkeypatch.setenv("DATA_DIR", deep + "/b")
    second = load_settings().runtime_dir
    assert first != second
    assert len(os.fsencode(first)) < 60
