"""Start a program of Postgres for the embedded server: ``python -I -S postgres_launcher.py SPEC``.

Postgres refuses to run as root, and what it needs (the wheel's folder, DATA_DIR) may lie under /root, where no other
uid can go. So for root this makes a private mount namespace with bind mounts in a tmpfs, becomes a uid that nobody
has, and execs. For anyone else it only execs. Either way the kernel sends SIGINT ("fast shutdown") to Postgres when
the server dies, even by SIGKILL.

SPEC is JSON: ``parent`` pid, ``argv`` (``{stage}`` is replaced), ``uid`` (null: stay who you are), and ``binds``: a
list of ``[source folder, name in the stage, read-only]``. Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interpreter_api import namespaces
else:
    sys.path.append(str(Path(__file__).parent.parent))
    import namespaces


def _stage(binds: list[tuple[str, str, bool]], uid: int) -> Path:
    """The private mount namespace; returns the folder that holds every bind."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    namespaces.make_mounts_private()
    # Opened in the new namespace (the kernel binds nothing from another one), before the stage covers anything.
    sources = [os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for source, _, _ in binds]
    stage = namespaces.private_tmpfs()
    for source, (_, name, readonly) in zip(sources, binds, strict=True):
        (stage / name).mkdir()
        namespaces.bind(source, str(stage / name), readonly=readonly)
        os.close(source)
    # initdb wants a name for its uid; the system's own list is left alone, this one is seen by Postgres only.
    names = stage / "passwd"
    names.write_text(f"root:x:0:0::/:/bin/false\npostgres:x:{uid}:{uid}::/:/bin/false\n")
    names.chmod(0o644)
    namespaces.mount(str(names), "/etc/passwd", flags=namespaces.MS_BIND)
    return stage


def main(spec: dict[str, Any]) -> None:
    """Never returns where all goes well."""
    parent, uid, argv = int(spec["parent"]), spec["uid"], list(spec["argv"])
    namespaces.die_with_parent(signal.SIGINT, parent)
    os.umask(0o077)
    if uid is not None:
        stage = _stage(spec["binds"], uid)
        argv = [part.replace("{stage}", str(stage)) for part in argv]
        os.chdir(stage)
        namespaces.drop_to(uid, uid)
        namespaces.die_with_parent(signal.SIGINT, parent)
    namespaces.forbid_new_privileges()
    # initdb and Postgres take C for every locale that is not given; nothing of the server's environment comes along.
    os.execve(argv[0], argv, {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"})  # noqa: S606


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except OSError as error:
        sys.stderr.write(f"FATAL:  {error.filename or 'launcher'}: {error.strerror}\n")
        sys.exit(70)
