r"""The scripted agent as a server: what an agent server of the driver ``http`` answers, without a model.

    python scripted_server.py --port 0

prints its address once it listens. ``POST`` with an order runs the scripted agent on its prompt, in its ``workspace``,
and answers with the events as they come (``application/x-ndjson``). A key that was answered before gets the same answer
again, and nothing is run. When the asker hangs up, the work ends. An agent that is killed cuts the connection.

    --latency S        so long before each answer
    --single           one request at a time, health included, as servers with one thread do
    --fail STATUS      the first --times orders get this status instead
    --cut N            the connections of the first N orders are cut after their first event
    --whole            one JSON object instead of events; --text: the result alone, as text

``GET /health`` answers; ``GET /_log`` tells every order so far: ``{key, order, answered}``. Standard library only.
"""

import argparse
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any

AGENT = (sys.executable, "-I", "-S", str(Path(__file__).with_name("scripted_agent.py")))


class Book:
    """What was asked and answered."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.lock = threading.Lock()
        self.orders: list[dict[str, Any]] = []
        self.answers: dict[str, bytes] = {}
        self.at_work: dict[str, threading.Lock] = {}

    def note(self, key: str, order: str) -> tuple[dict[str, Any], int]:
        """A new line of the log, and how many there are."""
        with self.lock:
            self.orders.append({"key": key, "order": order, "answered": False})
            return self.orders[-1], len(self.orders)

    def turn(self, key: str) -> threading.Lock:
        """What holds a second request of the same key back."""
        with self.lock:
            return self.at_work.setdefault(key, threading.Lock())


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    book: Book

    def log_message(self, *words: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Health, and the log."""
        found = self.book.orders if self.path == "/_log" else {"status": "healthy"}
        self.reply(200, json.dumps(found).encode())

    def do_POST(self) -> None:
        """An order."""
        order = json.loads(self.rfile.read(int(self.headers["content-length"])))
        key = self.headers.get("idempotency-key", "")
        line, number = self.book.note(key, order["order"])
        options = self.book.options
        time.sleep(options.latency)
        if options.fail and number <= options.times:
            self.reply(options.fail, b'{"error": "scripted"}')
            return
        with self.book.turn(key):
            known = self.book.answers.get(key)
            if known is None:
                known = self.work(order, cut=number <= options.cut)
            else:
                self.send_events()
                self.chunk(known)
                self.chunk(b"")
        if known is not None:
            self.book.answers[key] = known
            line["answered"] = True

    def work(self, order: dict[str, Any], *, cut: bool) -> bytes | None:
        """Run it. Returns its events, None when it came to no end, or the asker did not wait for it."""
        agent = subprocess.Popen(
            AGENT, cwd=order.get("workspace"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert agent.stdin is not None
        feeding = threading.Thread(target=feed, args=(agent, order["prompt"].encode()))
        feeding.start()
        streamed = not (self.book.options.whole or self.book.options.text)
        if streamed:
            self.send_events()
        said = self.hear(agent, streamed=streamed, cut=cut)
        if said is None:
            os.killpg(agent.pid, signal.SIGKILL)
        code = agent.wait()
        feeding.join()
        if said is None or code < 0:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        if not streamed:
            self.whole(said)
            return said
        if code not in (0, 1):
            last = json.dumps({"type": "error", "data": {"error": f"exit {code}"}}).encode() + b"\n"
            self.chunk(last)
            said += last
        self.chunk(b"")
        return said

    def hear(self, agent: "subprocess.Popen[bytes]", *, streamed: bool, cut: bool) -> bytes | None:
        """Pass on what it says; None: the asker hung up, or was to be hung up on."""
        assert agent.stdout is not None
        source, said = agent.stdout.fileno(), bytearray()
        while True:
            ready, _, _ = select.select([source, self.connection], [], [])
            if self.connection in ready and not self.connection.recv(1, socket.MSG_PEEK):
                return None
            if source not in ready:
                continue
            piece = os.read(source, 1 << 16)
            if not piece:
                return bytes(said)
            said += piece
            if streamed:
                self.chunk(piece)
            if cut:
                return None

    def whole(self, said: bytes) -> None:
        """The events as one answer."""
        lines = [json.loads(line) for line in said.splitlines() if line.startswith(b"{")]
        found = {line["type"]: line["data"] for line in lines if line.get("type") in ("finish", "error", "cost")}
        end = found.get("finish", {"status": "failed", "result": ""})
        if self.book.options.text:
            self.reply(200, end["result"].encode(), "text/plain; charset=utf-8")
            return
        document = {**end, "cost": found.get("cost"), "error": found.get("error", {}).get("error")}
        self.reply(200, json.dumps(document).encode())

    def send_events(self) -> None:
        """The head of a stream of events."""
        self.send_response(200)
        self.send_header("content-type", "application/x-ndjson")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        """A piece of the stream; empty: its end."""
        try:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        except OSError:
            self.close_connection = True

    def reply(self, status: int, data: bytes, kind: str = "application/json") -> None:
        """A whole answer."""
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def feed(agent: "subprocess.Popen[bytes]", prompt: bytes) -> None:
    """Give it its prompt; it may be gone before it has read all of it."""
    assert agent.stdin is not None
    try:
        agent.stdin.write(prompt)
        agent.stdin.close()
    except OSError:
        return


@contextmanager
def serving(*options: str, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """A server of its own process, by its address; ``env`` is all that its agents see."""
    command = [sys.executable, "-I", "-S", __file__, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def main() -> None:
    """Listen until it is ended."""
    parser = argparse.ArgumentParser(description="A scripted agent server.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--single", action="store_true")
    parser.add_argument("--fail", type=int, default=0)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--cut", type=int, default=0)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--text", action="store_true")
    options = parser.parse_args()
    handler = type("Bound", (Handler,), {"book": Book(options)})
    server = (HTTPServer if options.single else ThreadingHTTPServer)(("127.0.0.1", options.port), handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
