"""The zygote: imports what every session needs, then forks workers on demand.

A program of its own (``python -m interpreter_sandbox.runtime.zygote FD LIMITS WORKSPACE``) with one thread, because a
fork carries one thread only. It forks twice, so that the worker is a child of the agent (PID 1, or a subreaper): the
agent learns of a worker's end at once and from the kernel, also when user code has killed the zygote.

Requests on the SOCK_SEQPACKET socket ``FD``: ``fork`` with the worker's control socket → ``{"pid"}``; ``memory`` →
``{"memory_bytes"}``. The first message is the zygote's own: ``{"ready": true}``.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from interpreter_sandbox.runtime import linux, worker
from interpreter_sandbox.runtime.limits import Limits
from interpreter_sandbox.runtime.processes import memory_bytes
from interpreter_sandbox.runtime.resident import drop_clean_file_pages
from interpreter_sandbox.runtime.shell import Shell


def _reply(control: socket.socket, **answer: object) -> None:
    control.send(json.dumps(answer).encode())


def _fork(control: socket.socket, shell: Shell, limits: Limits, worker_fd: int) -> None:
    middle = os.fork()
    if middle:
        os.close(worker_fd)
        os.waitpid(middle, 0)
        return
    child = os.fork()
    if child:
        _reply(control, pid=child)
        os._exit(0)
    worker.main(shell, limits, worker_fd)


def serve(control: socket.socket, limits: Limits, workspace: Path) -> NoReturn:
    """Import, freeze, fork on request until the agent closes the socket."""
    # so that user code, of the same uid, can neither read nor change what the next worker is made of
    linux.set_dumpable(False)
    shell = Shell(emit=worker.no_session, workspace=workspace)
    gc.collect()
    gc.freeze()
    drop_clean_file_pages()
    _reply(control, ready=True)
    while True:
        request, fds, _, _ = socket.recv_fds(control, 64, 1)
        if request == b"fork" and fds:
            _fork(control, shell, limits, fds[0])
        elif request == b"memory":
            _reply(control, memory_bytes=memory_bytes(os.getpid()))
        else:
            os._exit(0)


def main() -> NoReturn:
    """The program's entry point."""
    _, control_fd, limits, workspace = sys.argv
    linux.die_with_parent()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the agent blocks what it reads by descriptor
    control = socket.socket(fileno=int(control_fd))
    control.set_inheritable(False)
    serve(control, Limits(**json.loads(limits)), Path(workspace))


if __name__ == "__main__":
    main()
