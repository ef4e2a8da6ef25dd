"""FS: out of the sandbox through files, descriptors and sockets."""

import glob
import os
import shutil
import socket
import stat
import subprocess
import time

from kit import Attempts, read_start


def read_files(paths):
    """FS01. Success: the file's bytes."""
    tries = Attempts()
    for path in paths:
        tries.attempt(path, lambda path=path: read_start(path))
    return tries.report()


def write_files(folders, name):
    """FS02. Success: a file of ours in a folder that Python imports from, or that the system runs from."""
    tries = Attempts()
    for folder in folders:
        path = os.path.join(folder, name)

        def write(path=path):
            with open(path, "w") as out:
                out.write("# canary\n")
            return os.path.exists(path)

        tries.attempt(path, write)
    return tries.report()


def through_proc(path):
    """FS09. Success: the host's file through another process's root or working directory."""
    tries = Attempts()
    relative = path.lstrip("/")
    tries.attempt("self/root", lambda: read_start(f"/proc/self/root/{relative}"))
    tries.attempt("1/root", lambda: read_start(f"/proc/1/root/{relative}"))
    processes = sorted(int(p) for p in os.listdir("/proc") if p.isdigit())

    def through(link):
        for process in processes:
            for climb in ("", "../" * 12):
                try:
                    found = read_start(f"/proc/{process}/{link}/{climb}{relative}")
                except OSError:
                    continue
                return f"{process}: {found}"
        return None

    tries.attempt("*/root", lambda: through("root"))
    tries.attempt("*/cwd", lambda: through("cwd"))
    return tries.report(processes=len(processes))


def descriptors(outside):
    """FS10. Success: an inherited descriptor that reads a file, opens the world outside, or accepts connections."""
    tries = Attempts()
    found = {"file": None, "folder": None, "listener": None}
    seen = []
    for number in range(3, 4096):
        try:
            mode = os.fstat(number).st_mode
        except OSError:
            continue
        link = os.readlink(f"/proc/self/fd/{number}")
        seen.append(f"{number} {link}")
        if stat.S_ISREG(mode) and not link.startswith("/memfd:"):
            try:
                found["file"] = found["file"] or os.pread(number, 200, 0).decode("utf-8", "replace")
            except OSError:
                pass  # opened for writing only
        elif stat.S_ISDIR(mode):
            try:
                up = os.open("../" * 12 + outside.lstrip("/"), os.O_RDONLY, dir_fd=number)
            except OSError:
                continue
            found["folder"] = os.read(up, 200).decode("utf-8", "replace")
            os.close(up)
        elif stat.S_ISSOCK(mode):
            with socket.socket(fileno=os.dup(number)) as copy:
                if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found["listener"] = link
    for name, value in found.items():
        tries.attempt(name, lambda value=value: value)
    return tries.report(seen=seen)


def host_sockets(paths, abstract):
    """FS14. Success: a greeting from a Unix socket of the host, by path or by abstract name."""
    tries = Attempts()

    def greeting(address):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2)
            client.connect(address)
            return client.recv(100).decode()

    for path in paths:
        tries.attempt(path, lambda path=path: greeting(path))
    tries.attempt("abstract", lambda: greeting("\0" + abstract))
    return tries.report()


def postgres_sockets(pattern):
    """FS14. Success: the embedded Postgres's socket is visible and takes a connection."""
    tries = Attempts()

    def connect():
        for path in glob.glob(pattern, recursive=True):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                return path
        return None

    tries.attempt("postgres", connect)
    return tries.report()


def become_root(program):
    """FS15. Success: user id 0, by asking for it or by a program that has the setuid bit."""
    tries = Attempts()

    def by_program(path):
        """The effective user id of a setuid program while it waits for its input."""
        with subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            deadline = time.monotonic() + 2
            effective = os.geteuid()
            while child.poll() is None and time.monotonic() < deadline and effective == os.geteuid():
                with open(f"/proc/{child.pid}/status") as status:
                    uids = next(line for line in status if line.startswith("Uid:")).split()
                effective = int(uids[2])
                time.sleep(0.01)
            child.kill()
        return effective == 0 and f"effective uid {effective}"

    tries.attempt("setuid program of the system", lambda: by_program("/usr/bin/su"))
    tries.attempt("setuid program of ours", lambda: by_program(program))
    return tries.report(uid=os.geteuid())


def make_setuid_copy(path):
    """FS15. A copy of a waiting program, with the setuid bit if that can be had."""
    shutil.copy("/usr/bin/cat", path)
    os.chmod(path, 0o6755)
    return {"attempts": {}, "facts": {"mode": oct(os.stat(path).st_mode)}}
