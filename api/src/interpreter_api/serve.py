"""Run the server: checks first, then the platform, then requests, until a signal; in under five seconds to the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from typing import TYPE_CHECKING

import uvicorn

from interpreter_api import instance
from interpreter_api.app import create_app
from interpreter_api.connections import PromptProtocol
from interpreter_api.instance import StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from interpreter_api.settings import Settings

log = logging.getLogger(__name__)

#: Requests that still run get this long after a signal; idle streams are cut then.
_GRACE_SECONDS = 2
#: Header of one request, at most: enough to answer a megabyte of key with the 401 of any other wrong key.
_MAX_HEADER_BYTES = (1 << 20) + (64 << 10)
_MAX_CONNECTIONS = 2000
_BACKLOG = 2048


class _Server(uvicorn.Server):
    """Leaves signals alone: ours also have to end a server that is still starting."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield


def listen(settings: Settings) -> socket.socket:
    """Take the port before anything is started. Raises ``StartError``."""
    try:
        found = socket.getaddrinfo(
            settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise StartError(f"HOST {settings.host}: {error.strerror}.") from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = f"port {settings.port} on {settings.host} cannot be used: {error.strerror}"
        raise StartError(f"{reason}. Stop what listens there, or name another port with PORT.") from None
    listener.setblocking(False)
    return listener


async def serve(settings: Settings, on_ready: Callable[[Settings], None]) -> None:
    """Run until SIGINT or SIGTERM; a second signal skips the grace. Raises ``StartError`` and ``DatabaseError``.

    ``on_ready`` gets the settings with the port that was really taken.
    """
    with instance.claim(settings), contextlib.closing(listen(settings)) as listener:
        settings = settings.model_copy(update={"port": listener.getsockname()[1]})
        app = create_app(settings)
        config = uvicorn.Config(
            app,
            http=PromptProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        server = _Server(config)
        with _signals(server):
            if server.should_exit:
                return
            async with app.router.lifespan_context(app):
                if not server.should_exit:
                    # Bound to one address at most: a client on this machine reaches it by the loopback or that one.
                    local = settings.model_copy(update={"public_base_url": None})
                    with instance.announced(settings.data_dir, local.base_url):
                        on_ready(settings)
                        await server.serve([listener])
                log.info("ending")


@contextlib.contextmanager
def _signals(server: uvicorn.Server) -> Iterator[None]:
    """The first signal ends in order, also while starting; the second gives running requests no more time."""
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    assert main is not None
    asked = 0

    def ask(sig: signal.Signals) -> None:
        nonlocal asked
        asked += 1
        log.info("%s: ending", sig.name)
        if server.started:
            server.should_exit = True
            server.force_exit = asked > 1
        elif not server.should_exit:
            server.should_exit = True
            main.cancel()

    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, ask, sig)
    try:
        yield
    except asyncio.CancelledError:
        if not asked:
            raise
        main.uncancel()
    finally:
        for sig in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(sig)
