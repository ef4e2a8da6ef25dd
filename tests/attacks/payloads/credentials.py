"""CR: secrets, wherever a process may keep them. What is found comes back as a hash: the code must not hold it."""

import hashlib
import os
import re
import resource
import signal

from kit import Attempts, in_child

CHUNK = 1 << 20
SECRET = re.compile(rb"pi-canary-[0-9a-f]{32}")


def processes():
    """Every process that /proc shows, the caller excepted."""
    return [int(p) for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid()]


def hashes(data):
    """What looks like one of the test's secrets, hashed."""
    return sorted({hashlib.sha256(found).hexdigest() for found in SECRET.findall(data)})


def environments():
    """CR01. Success: a secret in the environment of any process, this one included."""
    tries = Attempts()

    def of(process):
        with open(f"/proc/{process}/environ", "rb") as source:
            return hashes(source.read())

    def of_others():
        found = []
        for process in processes():
            try:
                found += of(process)
            except OSError:
                continue
        return found

    tries.attempt("others", of_others)
    tries.attempt("first", lambda: of(1))
    tries.attempt("own", lambda: of("self"))
    return tries.report(names=sorted(os.environ))


def own_memory():
    """CR03. Success: a secret anywhere in this process's memory, but for the one planted here to prove the scan."""
    tries = Attempts()
    planted = b"pi-" + b"canary-" + os.urandom(16).hex().encode()
    own = hashlib.sha256(planted).hexdigest()
    found = set()

    def scan():
        with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
            for line in maps:
                where, permissions, *_ = line.split()
                if not permissions.startswith("r") or "[v" in line:
                    continue
                start, end = (int(part, 16) for part in where.split("-"))
                for position in range(start, end, CHUNK):
                    memory.seek(position)
                    try:
                        found.update(hashes(memory.read(min(CHUNK + 64, end - position))))
                    except (OSError, ValueError):
                        break
        return sorted(found - {own})

    tries.attempt("memory", scan)
    return tries.report(planted=len(planted), works=own in found)


def other_memory():
    """CR04. Success: memory, descriptors or the environment of a process that is not the attacker's own."""
    tries = Attempts()

    def each(action):
        got = []
        for process in processes():
            try:
                if action(process):
                    got.append(process)
            except OSError:
                continue
        return got

    def read_memory(process):
        with open(f"/proc/{process}/maps") as maps:
            start = next((line.split("-")[0] for line in maps if "rw-p" in line), None)
        with open(f"/proc/{process}/mem", "rb", 0) as memory:
            memory.seek(int(start, 16))
            return memory.read(16)

    tries.attempt("memory of others", lambda: each(read_memory))
    tries.attempt("descriptors of the first", lambda: os.listdir("/proc/1/fd"))
    tries.attempt("environment of the first", lambda: open("/proc/1/environ", "rb").read())
    tries.attempt("memory of the first", lambda: read_memory(1))

    def descriptor_of_first():
        for number in os.listdir("/proc/1/fd"):
            os.close(os.open(f"/proc/1/fd/{number}", os.O_RDONLY | os.O_NONBLOCK))
            return True
        return False

    tries.attempt("reopen a descriptor of the first", descriptor_of_first)
    return tries.report(processes=processes())


def core_dump():
    """CR04. Success: a core file, which would hold all that the process knew."""
    tries = Attempts()

    def dump():
        os.makedirs("cores", exist_ok=True)
        os.chdir("cores")

        def crash():
            resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            os.kill(os.getpid(), signal.SIGABRT)
            return False

        try:
            in_child(crash)
        except OSError:
            pass
        return [name for name in os.listdir(".") if name.startswith("core")]

    here = os.getcwd()
    tries.attempt("core file", dump)
    os.chdir(here)
    return tries.report(pattern=open("/proc/sys/kernel/core_pattern").read())
