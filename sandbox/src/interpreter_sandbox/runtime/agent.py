"""The agent: PID 1 of a sandbox. It serves the agent protocol and owns the processes that run code.

    python -m interpreter_sandbox.runtime.agent --config JSON

The configuration is one JSON object::

    {"uid": "...",                     the sandbox's uid, which every token names
     "public_key": "...",              base64 of the raw Ed25519 key that tokens are signed with
     "listen": {"fd": 3} or {"host": "0.0.0.0", "port": 8700},
     "workspace": "/workspace",        optional
     "limits": {"memory_bytes": ..., "max_processes": ..., "max_open_files": ..., "max_file_bytes": ...,
                "workspace_bytes": ...}}  each optional

It ends on SIGTERM or SIGINT from outside the sandbox; from inside, nothing reaches it: PID 1 of a pid namespace gets
no signal that it has not asked for, and of those that it has asked for, the sender is looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from interpreter_sandbox.protocol import WORKSPACE
from interpreter_sandbox.runtime import linux, seccomp
from interpreter_sandbox.runtime.app import AgentApp
from interpreter_sandbox.runtime.engine import Engine
from interpreter_sandbox.runtime.http_server import HttpConnection
from interpreter_sandbox.runtime.limits import Limits
from interpreter_sandbox.runtime.tokens import TokenVerifier

_BACKLOG: Final = 64


class ConfigError(ValueError):
    """The ``--config`` object makes no sense; the message names the field."""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """The parsed ``--config``."""

    uid: str
    public_key: bytes
    listen: dict[str, Any]
    workspace: Path
    limits: Limits

    @classmethod
    def parse(cls, text: str) -> AgentConfig:
        """:class:`ConfigError` for anything but the object in this module's docstring."""
        try:
            raw = json.loads(text)
            limits = raw.get("limits", {})
            unknown = limits.keys() - {field.name for field in fields(Limits)}
            if unknown or not all(isinstance(value, int) and value > 0 for value in limits.values()):
                raise ConfigError(f"limits: positive whole numbers by known names; unknown: {sorted(unknown)}")
            listen = raw["listen"]
            if listen.keys() not in ({"fd"}, {"host", "port"}):
                raise ConfigError("listen: either fd, or host and port")
            key = base64.b64decode(raw["public_key"], validate=True)
            workspace = Path(raw.get("workspace", WORKSPACE))
            return cls(str(raw["uid"]), key, listen, workspace, Limits(**limits))
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError, binascii.Error) as error:
            raise ConfigError(f"{type(error).__name__}: {error}") from None

    def socket(self) -> socket.socket:
        """The listening socket: inherited, or bound here."""
        if "fd" in self.listen:
            listening = socket.socket(fileno=int(self.listen["fd"]))
            listening.set_inheritable(False)
        else:
            listening = socket.create_server((self.listen["host"], int(self.listen["port"])), backlog=_BACKLOG)
        return listening


async def serve(config: AgentConfig) -> None:
    """Serve until a signal from outside comes."""
    loop = asyncio.get_running_loop()
    engine = Engine(config.limits, config.workspace)
    app = AgentApp(engine, TokenVerifier(config.public_key, config.uid))
    ended = asyncio.Event()
    signals = linux.signal_descriptor(signal.SIGTERM, signal.SIGINT)
    loop.add_reader(signals, _heard_signal, signals, ended)
    engine.start()
    server = await loop.create_server(lambda: HttpConnection(app), sock=config.socket(), backlog=_BACKLOG)
    async with server:
        await ended.wait()
        engine.close()
        os._exit(0)  # connections may be open, and there is nothing to tell them


def _heard_signal(signals: int, ended: asyncio.Event) -> None:
    _, sender = linux.signal_sender(signals)
    if sender == 0 or os.getpid() != 1:
        ended.set()


def main() -> None:
    """The program's entry point."""
    parser = argparse.ArgumentParser(description="The agent of a sandbox.")
    parser.add_argument("--config", required=True, help="one JSON object; see the module's docstring")
    try:
        config = AgentConfig.parse(parser.parse_args().config)
    except ConfigError as error:
        sys.exit(f"agent: --config: {error}")
    linux.set_dumpable(False)
    linux.become_subreaper()
    seccomp.load()
    asyncio.run(serve(config))


if __name__ == "__main__":
    main()
