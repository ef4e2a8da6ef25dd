"""NET: bytes out of the sandbox, or into it from a neighbour."""

import os
import socket
import struct
import threading

from kit import Attempts

FAMILIES = {
    "AF_NETLINK": (16, socket.SOCK_RAW, 0),
    "AF_PACKET": (17, socket.SOCK_RAW, 0x0300),
    "AF_ALG": (38, socket.SOCK_SEQPACKET, 0),
    "AF_VSOCK": (40, socket.SOCK_STREAM, 0),
    "AF_BLUETOOTH": (31, socket.SOCK_RAW, 1),
    "AF_XDP": (44, socket.SOCK_RAW, 0),
    "AF_CAN": (29, socket.SOCK_RAW, 1),
    "AF_TIPC": (30, socket.SOCK_SEQPACKET, 0),
    "AF_RDS": (21, socket.SOCK_SEQPACKET, 0),
    "AF_SMC": (43, socket.SOCK_STREAM, 0),
    "AF_KEY": (15, socket.SOCK_RAW, 2),
}


def families():
    """NET12. Success: a socket of a family that reaches the kernel, the hypervisor or the wire."""
    tries = Attempts()
    for name, (family, kind, protocol) in FAMILIES.items():

        def open_(family=family, kind=kind, protocol=protocol):
            with socket.socket(family, kind, protocol) as made:
                return made.fileno() >= 0

        tries.attempt(name, open_)
    return tries.report()


def tcp(host, port, timeout=2):
    """What the service says first."""
    with socket.create_connection((host, port), timeout=timeout) as client:
        client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        return client.recv(200)


def udp(host, port, data=b"canary-canary-canary", timeout=1):
    """What comes back for a datagram."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        client.sendto(data, (host, port))
        return client.recv(200)


def reach(streams, datagrams):
    """NET01, NET03, NET06-NET08, NET13. Success: an answer from an address outside the sandbox."""
    tries = Attempts()
    for host, port in streams:
        tries.attempt(f"tcp {host} {port}", lambda host=host, port=port: tcp(host, port))
    for host, port in datagrams:
        tries.attempt(f"udp {host} {port}", lambda host=host, port=port: udp(host, port))
    return tries.report()


def resolve(servers, name):
    """NET02. Success: a question whose name carries data reaches a name server, by the resolver or by hand."""
    tries = Attempts()

    def by_resolver():
        try:
            socket.getaddrinfo(name, 80)
        except socket.gaierror as error:
            # "No such name" is an answer: the question went out.
            return error.errno in (socket.EAI_NONAME, socket.EAI_NODATA) and nameservers()
        return True

    def nameservers():
        with open("/etc/resolv.conf") as source:
            return [line for line in source if line.startswith("nameserver")]

    question = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0)
    for label in name.split("."):
        question += bytes([len(label)]) + label.encode()
    question += b"\0\0\1\0\1"
    tries.attempt("resolver", by_resolver)
    for server in servers:
        tries.attempt(f"udp 53 {server}", lambda server=server: udp(server, 53, question))
        tries.attempt(f"tcp 53 {server}", lambda server=server: tcp(server, 53))
    return tries.report()


def protocols(host, host6):
    """NET11. Success: IPv6, ICMP or a raw packet goes out."""
    tries = Attempts()
    tries.attempt("tcp over IPv6", lambda: tcp(host6, 80))
    tries.attempt("udp over IPv6", lambda: udp(host6, 53))

    def ping(family, protocol, target, request):
        with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
            raw.settimeout(1)
            raw.sendto(request, (target, 0))
            return raw.recv(200)

    echo = struct.pack("!BBHHH", 8, 0, 0xF7FF - 7, 0, 7)
    tries.attempt("ICMP", lambda: ping(socket.AF_INET, socket.IPPROTO_ICMP, host, echo))
    echo6 = struct.pack("!BBHHH", 128, 0, 0, 0, 7)
    tries.attempt("ICMPv6", lambda: ping(socket.AF_INET6, socket.IPPROTO_ICMPV6, host6, echo6))

    def raw_ip():
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20, 1, 0, 64, 253, 0, bytes(4), socket.inet_aton(host))
            return raw.sendto(header, (host, 0))

    tries.attempt("raw IP", raw_ip)

    def sctp():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132) as made:
            return made.fileno() >= 0 and made.connect((host, 80)) is None

    tries.attempt("SCTP socket", sctp)
    return tries.report()


_OPEN = []


def listen(port, abstract):
    """NET07, NET14. Listen on every address and on an abstract name, and go on listening after this cell."""

    def greet(server):
        while True:
            client, _ = server.accept()
            with client:
                client.sendall(b"greeting")

    servers = [socket.create_server(("", port)), socket.create_server(("::", port), family=socket.AF_INET6)]
    unix = socket.socket(socket.AF_UNIX)
    unix.bind("\0" + abstract)
    unix.listen()
    for server in [*servers, unix]:
        _OPEN.append(server)
        threading.Thread(target=greet, args=(server,), daemon=True).start()
    return {"attempts": {}, "facts": {"pid": os.getpid()}}


def connect(port, abstract, addresses):
    """NET07, NET14. Success: a greeting from the neighbour's service."""
    tries = Attempts()

    def by_name():
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2)
            client.connect("\0" + abstract)
            return client.recv(100)

    for address in addresses:
        tries.attempt(f"tcp {address}", lambda address=address: tcp(address, port))
    tries.attempt("abstract", by_name)
    return tries.report()


def listen_forever(port, abstract):
    """The control's neighbour: says when it listens, then stays until it is killed."""
    listen(port, abstract)
    print("listening", flush=True)
    threading.Event().wait()


def open_ports(ports):
    """NET07. Success: any of these ports answers on any of the sandbox's own addresses."""
    tries = Attempts()

    def scan():
        found = []
        for port in ports:
            with socket.socket() as client:
                client.settimeout(0.2)
                # A socket may meet itself where the port is the one that the kernel chose for it.
                if client.connect_ex(("127.0.0.1", port)) == 0 and client.getsockname() != client.getpeername():
                    found.append(port)
        return found

    tries.attempt("scan", scan)
    return tries.report()
