"""``power-interpreter``: serve, stdio, keys, settings. Mistakes end with one line and a status, never a traceback.

Exit status: 0 done, 1 cannot start or not found, 2 wrong usage or wrong settings.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from interpreter_api import __version__, clients, instance, logs
from interpreter_api.auth.keys import digest
from interpreter_api.data.embedded import running_embedded
from interpreter_api.data.postgres import Database, DatabaseError
from interpreter_api.data.principals import Principals
from interpreter_api.errors import InterpreterError
from interpreter_api.instance import AlreadyRunningError, StartError
from interpreter_api.platform import open_database
from interpreter_api.settings import Settings, SettingsError, load_settings, markdown_table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "settings":
        _print(markdown_table(), end="")
        return 0
    try:
        settings = load_settings()
        logs.configure(settings)
        return _run(arguments, settings)
    except SettingsError as error:
        for problem in error.problems:
            _complain(problem)
        return 2
    except (StartError, DatabaseError) as error:
        _complain(str(error))
        return 1
    except InterpreterError as error:
        _complain(error.message)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    match arguments.command:
        case "stdio":
            from interpreter_api.mcp import stdio  # a client waits for this: nothing of the server is loaded

            return stdio.run(settings)
        case "keys":
            return asyncio.run(_keys(arguments, settings))
        case _:
            import uvloop

            from interpreter_api.serve import serve  # loads the whole server, which the other commands do without

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve(settings, partial(_print_ready, show_key=arguments.show_key)))
            return 0


def _print_ready(settings: Settings, *, show_key: bool) -> None:
    key = instance.api_key(settings)
    _print(f"Power Interpreter {__version__} at {settings.base_url}  (MCP: {settings.base_url}/mcp)")
    if settings.api_key is None:
        _print(f"API key: {key}\n  kept in {settings.data_dir / 'api-key'}, the same at the next start")
    else:
        if show_key:
            _print(f"API key: {key}\n  the one in API_KEY")
        else:
            key = "YOUR_API_KEY"
            _print("API key: the one in API_KEY")
        if len(settings.api_key.get_secret_value()) < 16:
            log.warning("API_KEY is short enough to be guessed: use 16 random characters or more")
    given = settings.api_key is not None
    _print("\n" + clients.snippets(settings.base_url, key, settings.data_dir, key_from_setting=given) + "\n")


async def _keys(arguments: argparse.Namespace, settings: Settings) -> int:
    async with _any_database(settings) as database:
        principals = Principals(database)
        match arguments.keys_command:
            case "create":
                key = instance.new_key()
                info = await principals.create_key(arguments.name, arguments.tenant or arguments.name, digest(key))
                _print(key)  # alone on standard output, for `KEY=$(power-interpreter keys create NAME)`
                _note(f"key {info.id} of {info.tenant_id}/{info.name}; its text is shown this once")
            case "list":
                for info in await principals.list_keys():
                    state = f"revoked {info.revoked_at:%Y-%m-%d %H:%M}" if info.revoked_at else "valid"
                    role = " admin" if info.is_admin else ""
                    _print(
                        f"{info.id}  {info.tenant_id}/{info.name}{role}  made {info.created_at:%Y-%m-%d %H:%M}  {state}"
                    )
            case "revoke":
                if not await principals.revoke_key(arguments.id):
                    _complain(f"there is no key {arguments.id}; `keys list` shows them")
                    return 1
                _print(f"{arguments.id} is revoked; servers stop taking it within 2 seconds")
    return 0


@asynccontextmanager
async def _any_database(settings: Settings) -> AsyncIterator[Database]:
    """The database by DATABASE_URL, or that of the running server, or the embedded one started for the moment."""
    if settings.database_url is None:
        try:
            with instance.claim(settings):
                async with open_database(settings) as database:
                    yield database
                return
        except AlreadyRunningError:
            where = running_embedded(settings.data_dir, settings.runtime_dir)
        database = await Database.connect(**where, max_size=2)
        try:
            yield database
        finally:
            await database.close()
    else:
        async with open_database(settings) as database:
            yield database


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="power-interpreter",
        description="Sandboxed Python for AI agents, by MCP and REST. Settings come from the environment: "
        "`power-interpreter settings` lists them.",
    )
    parser.add_argument("--version", action="version", version=f"power-interpreter {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run the server")
    serve.add_argument(
        "--show-key", action="store_true", help="print the key of API_KEY too, for a person at a terminal: not for logs"
    )
    commands.add_parser("stdio", help="speak MCP on standard input and output, for desktop clients")
    commands.add_parser("settings", help="list every setting as a Markdown table")
    keys = commands.add_parser("keys", help="make, list and revoke API keys").add_subparsers(
        dest="keys_command", required=True
    )
    create = keys.add_parser("create", help="make a key and print it once")
    create.add_argument("name", help="whose key it is")
    create.add_argument("--tenant", help="who shares sessions and files with it; without it, nobody: NAME's own tenant")
    keys.add_parser("list", help="list keys, without their text")
    revoke = keys.add_parser("revoke", help="end a key")
    revoke.add_argument("id", help="its id, as `keys list` shows it")
    return parser


def _print(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


def _note(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _complain(text: str) -> None:
    _note(f"power-interpreter: {text}")


if __name__ == "__main__":
    sys.exit(main())
