"""``python -m shopfloor.testing.model``: the server as a program, for a network namespace or a container."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from shopfloor.testing.model.server import Model


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m shopfloor.testing.model", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--scripts", type=Path, help="JSON: script names, each with its list of steps")
    parser.add_argument("--log", type=Path, help="one JSON line for each request is added to this file")
    parser.add_argument("--bodies", action="store_true", help="whole request bodies in the log")
    parser.add_argument("--idle", default="ok", help="the answer to a request without a marker")
    parser.add_argument("--ready", type=Path, help="file that gets the URL once it listens")
    options = parser.parse_args()
    try:
        scripts = json.loads(options.scripts.read_text(encoding="utf-8")) if options.scripts else {}
        server = Model(scripts, port=options.port, log=options.log, bodies=options.bodies, idle=options.idle)
    except (OSError, ValueError) as error:
        sys.exit(f"the scripted model cannot start: {error}")
    with server as model:
        if options.ready:
            # Renamed, so that nobody reads half of it.
            half = options.ready.with_name(options.ready.name + ".new")
            half.write_text(model.url, encoding="utf-8")
            half.replace(options.ready)
        print(model.url, flush=True)
        try:
            model.serve()
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
