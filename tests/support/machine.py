"""A machine of the tests' own to attack: a network namespace with everything worth reaching on it.

Threads may live in another network namespace than their process: what they open stays there. So a server, its
sinks and the attacks' controls run in a network where the cloud's metadata address, a name server, a database and
"the internet" are sinks of ours, and nothing outside is touched.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
METADATA = "169.254.169.254"
METADATA_V6 = "fd00:ec2::254"
INTERNET = "203.0.113.7"
"""TEST-NET-3: stands for any address of the internet."""
FOREIGN = (METADATA, METADATA_V6, INTERNET)
TCP_PORTS = (22, 53, 80, 443, 5432, 6443, 8443, 9090, 10250)
UDP_PORTS = (53, 123, 443, 4444)
GREETING = b"sink-greeting"


class Machine:
    """The namespace: ``call`` runs a function in it, ``packets`` is what its wire saw for foreign addresses."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise PermissionError("the attacks need root: they make network namespaces and prove what root could do")
        made = threading.Event()
        self._first: list[int] = []
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(16, "machine", initializer=self._enter)
        self._pool.submit(made.set).result()
        self._closing = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.connections: list[tuple[str, int]] = []
        self.packets: list[str] = []
        self.call(self._furnish)

    def _enter(self) -> None:
        """Each thread of the pool: the first one makes the namespace, the others join it."""
        libc = ctypes.CDLL(None, use_errno=True)
        with self._lock:
            if not self._first:
                if libc.unshare(CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "unshare the network")
                self._first.append(os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY))
            elif libc.setns(self._first[0], CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run the function on a thread that lives in the namespace; a process it starts lives there too."""
        return self._pool.submit(function, *arguments).result()

    def _furnish(self) -> None:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for address in (f"{METADATA}/32", f"{INTERNET}/32", f"{METADATA_V6}/128"):
            subprocess.run(["ip", "address", "add", address, "dev", "lo"], check=True)
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._serve(wire, self._sniff)
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            for port in TCP_PORTS:
                self._serve(self._bound(family, socket.SOCK_STREAM, host, port), self._greet)
            for port in UDP_PORTS:
                self._serve(self._bound(family, socket.SOCK_DGRAM, host, port), self._echo)

    @staticmethod
    def _bound(family: socket.AddressFamily, kind: socket.SocketKind, host: str, port: int) -> socket.socket:
        sink = socket.socket(family, kind)
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sink.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sink.bind((host, port))
        if kind == socket.SOCK_STREAM:
            sink.listen()
        return sink

    def _serve(self, sink: socket.socket, loop: Callable[[socket.socket], None]) -> None:
        sink.settimeout(0.5)

        def run() -> None:
            while not self._closing.is_set():
                try:
                    loop(sink)
                except TimeoutError:
                    continue
                except OSError:
                    if self._closing.is_set():
                        return

        self._sockets.append(sink)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _greet(self, sink: socket.socket) -> None:
        connection, _ = sink.accept()
        with connection:
            self.connections.append(connection.getsockname()[:2])
            connection.sendall(GREETING)

    def _echo(self, sink: socket.socket) -> None:
        data, sender = sink.recvfrom(65535)
        self.connections.append(sink.getsockname()[:2])
        # A DNS question's id comes back with "no such name", so that a resolver is done at once.
        sink.sendto(data[:2] + b"\x81\x83" + data[4:] if sink.getsockname()[1] == 53 else data, sender)

    def _sniff(self, wire: socket.socket) -> None:
        frame = wire.recv(65535)
        kind = struct.unpack_from("!H", frame, 12)[0]
        if kind == 0x0800:
            target = socket.inet_ntop(socket.AF_INET, frame[30:34])
        elif kind == 0x86DD:
            target = socket.inet_ntop(socket.AF_INET6, frame[38:54])
        else:
            return
        if target in FOREIGN:
            self.packets.append(target)

    def forget(self) -> None:
        """Empty the sinks' notes."""
        self.connections.clear()
        self.packets.clear()

    def close(self) -> None:
        """End the sinks; the namespace goes with its last thread and process."""
        self._closing.set()
        for thread in self._threads:
            thread.join()
        for sink in self._sockets:
            sink.close()
        self._pool.shutdown()
        os.close(self._first[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
