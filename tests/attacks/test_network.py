"""NET: no byte leaves a sandbox, none comes in from a neighbour.

The server under attack lives in a network namespace of the tests (``support.machine``) where the metadata address,
a name server, a database and "the internet" are sinks that greet whoever comes. The controls run there too, as
ordinary processes, and reach them all; afterwards a packet socket on the wire must have seen nothing of the
sandbox's.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from support.attack import SANDBOX_PYTHON, Payload, Report, Session, Target, assert_contained, control, payload
from support.machine import INTERNET, METADATA, METADATA_V6, TCP_PORTS, UDP_PORTS

if TYPE_CHECKING:
    from pathlib import Path


def assert_nothing_arrives(target: Target, session: Session, attack: Payload, before: str = "") -> Report:
    """Control, then attack; the sinks saw the first, and nothing of the second."""
    machine = target.machine
    machine.forget()
    namespaces = ["--mount"] if before else []
    unsandboxed = target.call(lambda: control(attack, namespaces=namespaces, before=before))
    assert machine.connections or machine.packets, "void: the sinks saw nothing of the control"
    machine.forget()
    inside = session.attack(attack)
    assert_contained(unsandboxed, inside)
    assert not machine.connections
    assert not machine.packets
    session.assert_usable()
    return inside


@pytest.mark.attack("NET01")
def test_cloud_metadata(target: Target, session: Session) -> None:
    attack = payload("network.reach", streams=[(METADATA, 80), (METADATA_V6, 80)], datagrams=[(METADATA, 53)])
    assert_nothing_arrives(target, session, attack)


@pytest.mark.attack("NET02")
def test_names_carry_nothing_out(target: Target, session: Session, tmp_path: Path) -> None:
    """Control: with a resolv.conf of its own, in its own mount namespace, that names the sink."""
    configuration = tmp_path / "resolv.conf"
    configuration.write_text(f"nameserver {INTERNET}\noptions timeout:1 attempts:1\n")
    attack = payload("network.resolve", servers=[INTERNET, "127.0.0.1"], name="secret-data.exfiltration.example")
    assert_nothing_arrives(target, session, attack, before=f"mount --bind {configuration} /etc/resolv.conf")


@pytest.mark.attack("NET03")
def test_the_internet_by_address(target: Target, session: Session) -> None:
    """Raw DNS over UDP and TCP, DNS over HTTPS, NTP, QUIC, plain web."""
    attack = payload(
        "network.reach",
        streams=[(INTERNET, port) for port in (53, 80, 443)],
        datagrams=[(INTERNET, port) for port in UDP_PORTS],
    )
    assert_nothing_arrives(target, session, attack)


@pytest.mark.attack("NET06", "NET13", on="local")
def test_services_of_the_host(target: Target, session: Session) -> None:
    """What listens on 127.0.0.1 and ::1 of the host, a Postgres's port among them."""
    attack = payload(
        "network.reach",
        streams=[(host, port) for host in ("127.0.0.1", "::1") for port in TCP_PORTS],
        datagrams=[("127.0.0.1", port) for port in UDP_PORTS],
    )
    assert_nothing_arrives(target, session, attack)


@pytest.mark.attack("NET08")
def test_the_servers_own_port(target: Target, session: Session) -> None:
    port = urlsplit(target.server.url).port
    attack = payload("network.reach", streams=[("127.0.0.1", port)], datagrams=[])
    assert_contained(target.call(control, attack), session.attack(attack))
    session.assert_usable()


@pytest.mark.attack("NET11")
def test_other_protocols(target: Target, session: Session) -> None:
    assert_nothing_arrives(target, session, payload("network.protocols", host=METADATA, host6=METADATA_V6))


@pytest.mark.attack("NET12")
def test_socket_families(session: Session) -> None:
    """Families that the running kernel lacks must be refused by the filter all the same."""
    attack = payload("network.families")
    assert_contained(control(attack), session.attack(attack))
    session.assert_usable()


@pytest.mark.attack("NET07", "NET14")
def test_a_neighbours_listener_is_out_of_reach(target: Target, session: Session, neighbour: Session) -> None:
    """Control: of two processes on one machine, one reaches the other."""
    name = f"canary-{os.getpid()}"
    listen = payload("network.listen_forever", port=9555, abstract=name)
    connect = payload("network.connect", port=9555, abstract=name, addresses=["127.0.0.1", "::1"])

    def between_processes() -> Report:
        with subprocess.Popen(
            [SANDBOX_PYTHON, "-I", "-c", listen.source()], stdout=subprocess.PIPE, text=True
        ) as listener:
            assert listener.stdout
            assert listener.stdout.readline() == "listening\n"
            report = control(connect)
            listener.kill()
        return report

    unsandboxed = target.call(between_processes)
    neighbour.attack(payload("network.listen", port=9555, abstract=name))
    own = neighbour.attack(connect)
    assert not own.refused, "void: the neighbour cannot reach its own listener"
    assert_contained(unsandboxed, session.attack(connect))
    session.assert_usable()


@pytest.mark.attack("NET07")
def test_the_agent_listens_on_no_port(target: Target, session: Session) -> None:
    """Nothing in a sandbox answers on a port: not its own agent, let alone another's. Control: the machine's ports."""
    attack = payload("network.open_ports", ports=list(range(1, 65536)))
    narrow = payload("network.open_ports", ports=list(TCP_PORTS))
    assert_contained(target.call(control, narrow), session.attack(attack, timeout=50))
