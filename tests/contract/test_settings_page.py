"""docs/settings.md says what the settings are: it is written from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from interpreter_api.settings import Settings, markdown_table

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"

R05 = (
    "API_KEY DATABASE_URL PUBLIC_BASE_URL MAX_EXECUTION_TIME MAX_MEMORY_MB MAX_FILE_SIZE_MB MAX_CONCURRENT_JOBS "
    "JOB_TIMEOUT SANDBOX_FILE_MAX_MB SANDBOX_FILE_TTL_HOURS AZURE_TENANT_ID AZURE_CLIENT_ID AZURE_CLIENT_SECRET "
    "LOG_LEVEL HOST PORT DATA_DIR"
)


@pytest.mark.covers("R05")
def test_the_page_holds_the_table_that_the_settings_make() -> None:
    assert markdown_table() in PAGE.read_text(), "run `power-interpreter settings` and put its table into the page"


@pytest.mark.covers("R05")
def test_every_promised_setting_is_there() -> None:
    assert {name.lower() for name in R05.split()} <= set(Settings.model_fields)


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
