"""Pin every dependency with the hashes of all its wheels: `python tools/lock.py [--upgrade]`.

uv resolves once for all platforms and all supported Pythons, which pip cannot. Indexes are left out of the
result: a lock that names a host works only where that host does.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = """
    uv pip compile pyproject.toml --group dev --all-extras --universal --python-version 3.11 --generate-hashes --quiet
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file requirements.lock
"""


def main(arguments: list[str]) -> int:
    uv, *rest = COMMAND.split()
    environment = dict(os.environ)
    # uv does not read pip's settings; these two are what a machine behind a proxy or a mirror needs.
    for ours, theirs in {"UV_DEFAULT_INDEX": "PIP_INDEX_URL", "SSL_CERT_FILE": "PIP_CERT"}.items():
        if theirs in environment:
            environment.setdefault(ours, environment[theirs])
    program = Path(sys.executable).with_name(uv)
    return subprocess.run([program, *rest, *arguments], check=False, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
