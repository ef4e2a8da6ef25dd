"""Pin what the pyproject files ask for: `make lock` writes requirements/*.txt, `make lock-check` compares.

The pins are universal (3.11 to 3.14, any platform) and carry hashes; they name no index, so that a mirror works as
well. Pins that still satisfy the pyproject files are kept: `make lock UPGRADE=--upgrade` takes the newest instead.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import bootstrap

ROOT = bootstrap.ROOT
OPTIONS = ["--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate", "--python-version", "3.11"]
MEMBERS = ["interpreter-crds", "interpreter-operator", "interpreter-api", "interpreter-sandbox"]
FILES = {
    # the order matters: the server runs with the versions that were tested
    "dev.txt": ["crds", "operator", "api", "sandbox", "--extra", "local", "--extra", "client", "--group", "dev"],
    "server.txt": ["crds", "api", "--extra", "local", "--constraints", "requirements/dev.txt"],
    "sandbox.txt": ["sandbox", "--extra", "runtime"],
    "bench.txt": [
        "--group",
        "bench",
        "--constraints",
        "requirements/sandbox.txt",
    ],  # the same libraries, another kernel
}


def main(arguments: list[str]) -> int:
    """Write the files, or with ``--check`` say which differ; 1 where one does."""
    check = "--check" in arguments
    upgrade = [argument for argument in arguments if argument == "--upgrade"]
    uv = bootstrap.find_uv(sys.executable)
    stale = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, inputs in FILES.items():
            pinned = ROOT / "requirements" / name
            result = Path(scratch) / name if check else pinned
            if check:
                result.write_bytes(pinned.read_bytes())
            paths = [f"{part}/pyproject.toml" if (ROOT / part / "src").is_dir() else part for part in inputs]
            omitted = [option for member in MEMBERS for option in ("--no-emit-package", member)]
            command = [uv, "pip", "compile", *OPTIONS, *upgrade, *omitted, *paths, "--output-file", str(result)]
            subprocess.run(command, cwd=ROOT, env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"}, check=True)
            if result.read_bytes() != pinned.read_bytes():
                stale.append(name)
    for name in stale:
        print(f"requirements/{name} is not what the pyproject files ask for: type make lock", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
