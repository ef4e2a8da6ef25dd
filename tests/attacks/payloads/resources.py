"""RES: more processes, threads, memory, disk and descriptors than a sandbox has. All of it is given back."""

import mmap
import os
import resource
import shutil
import signal
import threading

from kit import Attempts, syscall

MIB = 1 << 20


def forks(count):
    """RES01. Success: that many processes at once."""
    tries = Attempts()
    children = []

    def many():
        for _ in range(count):
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                while True:
                    signal.pause()
            children.append(child)
        return len(children)

    tries.attempt("forks", many)
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    return tries.report(reached=len(children))


def threads(count):
    """RES03. Success: that many threads at once."""
    tries = Attempts()
    go_on = threading.Event()
    started = []

    def many():
        threading.stack_size(64 << 10)
        for _ in range(count):
            thread = threading.Thread(target=go_on.wait, daemon=True)
            thread.start()
            started.append(thread)
        return len(started)

    tries.attempt("threads", many)
    go_on.set()
    for thread in started:
        thread.join()
    threading.stack_size(0)
    return tries.report(reached=len(started))


def memory(total_mib):
    """RES04. Success: that much memory, touched: in one piece, and in small ones."""
    tries = Attempts()
    tries.attempt("one piece", lambda: len(bytearray(total_mib * MIB)))
    kept = []

    def leak():
        for _ in range(total_mib):
            kept.append(bytearray(MIB))
        return len(kept)

    tries.attempt("leak", leak)
    kept.clear()
    return tries.report()


def shared_memory(total_mib):
    """RES05. Success: that much memory in files of /dev/shm, which no limit of the process counts."""
    tries = Attempts()
    paths = []

    def fill():
        block = b"x" * MIB
        for number in range(0, total_mib, 64):
            paths.append(f"/dev/shm/canary-{os.getpid()}-{number}")
            with open(paths[-1], "wb", 0) as out:
                for _ in range(64):
                    if out.write(block) != MIB:
                        raise OSError(28, "short write")
        return True

    tries.attempt("/dev/shm", fill)
    for path in paths:
        os.unlink(path)
    return tries.report(files=len(paths))


def anonymous_files(total_mib):
    """RES05. Success: that much memory in memfds."""
    tries = Attempts()
    descriptors = []

    def fill():
        block = b"x" * MIB
        for _ in range(0, total_mib, 64):
            descriptors.append(syscall("memfd_create", b"canary", 0))
            for _ in range(64):
                os.write(descriptors[-1], block)
        return True

    tries.attempt("memfd", fill)
    for descriptor in descriptors:
        os.close(descriptor)
    return tries.report()


def shared_mapping(total_mib):
    """RES05. Success: that much memory in one shared mapping, touched."""
    tries = Attempts()

    def fill():
        area = mmap.mmap(-1, total_mib * MIB)
        for position in range(0, len(area), 4096):
            area[position] = 1
        area.close()
        return True

    tries.attempt("mapping", fill)
    return tries.report()


def disk(total_mib, folder):
    """RES06. Success: that many bytes in the workspace, in one file or in several; a sparse file of 1 TB."""
    tries = Attempts()
    place = os.path.join(folder, "disk")
    os.makedirs(place)
    block = os.urandom(MIB)

    def fill(files):
        for number in range(files):
            with open(f"{place}/{number}", "wb", 0) as out:
                for _ in range(total_mib // files):
                    if out.write(block) != MIB:
                        raise OSError(28, "short write")
        return True

    tries.attempt("one file", lambda: fill(1))
    shutil.rmtree(place)
    os.makedirs(place)
    tries.attempt("eight files", lambda: fill(8))
    shutil.rmtree(place)
    os.makedirs(place)

    def sparse():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with open(f"{place}/sparse", "wb") as out:
            out.truncate(1 << 40)
        return True

    tries.attempt("sparse", sparse)
    shutil.rmtree(place)
    return tries.report()


def empty_files(count, folder):
    """RES07. Success: that many files."""
    tries = Attempts()
    place = os.path.join(folder, "empty")
    os.makedirs(place)

    def many():
        for number in range(count):
            os.close(os.open(f"{place}/{number}", os.O_CREAT | os.O_WRONLY))
        return count

    tries.attempt("files", many)
    reached = sum(1 for _ in os.scandir(place))
    shutil.rmtree(place)
    return tries.report(reached=reached)


def open_files(count):
    """RES08. Success: that many descriptors at once, after asking for the most that may be asked for."""
    tries = Attempts()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    opened = []

    def many():
        for _ in range(count):
            opened.append(os.open("/dev/null", os.O_RDONLY))
        return count

    tries.attempt("descriptors", many)
    for descriptor in opened:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, soft)
    return tries.report(reached=len(opened))


def raise_limits():
    """RES04, RES06. Success: a limit that holds this process is lifted."""
    tries = Attempts()
    for name in ("RLIMIT_DATA", "RLIMIT_NPROC", "RLIMIT_FSIZE"):

        def lift(kind=getattr(resource, name)):
            holds, most = resource.getrlimit(kind)
            if holds == resource.RLIM_INFINITY:
                return "there is no limit"
            resource.setrlimit(kind, (holds + 1, most))
            return True

        tries.isolated(name, lift)
    return tries.report()
