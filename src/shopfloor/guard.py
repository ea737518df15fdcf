"""The guard: a small program between the engine and everything the engine starts, so that nothing survives.

    engine --socket--> guard --fork--> keeper (one per command) --fork, exec--> command and all it starts

The engine runs this file as a script and passes it one end of a socket pair. For each command it sends one
byte with four descriptors: the command's channel, stdin, stdout, stderr. Guard and keepers are child
sub-reapers: whatever loses its parent (double forks, new sessions, scrubbed environments) becomes a child
of the command's keeper. So a keeper knows its command's descendants, and kills until it has no child left.

- The command ends: its keeper kills what is left over, then reports, then exits.
- The engine goes: the guard reads the end of its socket and kills every descendant.
- A keeper goes: its orphans become children of the guard, which kills them; only then does the guard close
  its copy of the command's channel, so the end of a channel tells the engine that nothing is left.
- The guard goes: every keeper reads the end of the life pipe, which only the guard can write, and kills.

A channel is a byte stream. To the command: a request (see `encode_request`), read by the forked child itself
so that no secret stays in a keeper; then one byte per signal (see `TREE`). To the engine, lines:
`started PID START_TIME KEEPER_PID` or `failed STAGE ERRNO`, then
`ended WAIT_STATUS MAX_RSS CPU_SECONDS LEFTOVERS`.

On Linux nothing leaves the tree but what runs as another user. Elsewhere there is no sub-reaper and no
parent-death signal: only the command's process group is killed at its end, so that a descendant in a new
session survives, and so does a command whose keeper was killed. Few imports and no work at import: every idle
keeper is a fork of this, and pays for each page it touches.
"""

import errno
import gc
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import cache

LINUX = sys.platform == "linux"
TREE = 0x80  # added to a signal's number in an order: all descendants, not only the command's process group

SET_PDEATHSIG, SET_NAME, SET_CHILD_SUBREAPER = 1, 15, 36
_DESCRIPTORS = 4  # that come with each command


def encode_request(cwd: bytes, argv: list[bytes], env: dict[bytes, bytes]) -> bytes:
    """8 bytes of length, then the fields, joined by NUL bytes. Raises ValueError when one has any."""
    fields = [cwd, b"%d" % len(argv), *argv, *(name + b"=" + value for name, value in env.items())]
    body = b"\0".join(fields)
    if body.count(b"\0") != len(fields) - 1:
        raise ValueError("a NUL byte is not possible in a command, its directory or its environment")
    return len(body).to_bytes(8, "big") + body


def decode_request(body: bytes) -> tuple[bytes, list[bytes], dict[bytes, bytes]]:
    """The inverse of `encode_request`, without the length. Raises ValueError for what that does not write."""
    cwd, count, *rest = body.split(b"\0")
    words = int(count)
    if not 0 < words <= len(rest) or b"%d" % words != count:
        raise ValueError(f"{count!r} cannot be the number of words")
    return cwd, rest[:words], {name: value for name, _, value in (pair.partition(b"=") for pair in rest[words:])}


def stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third on: state, parent, ..., [19] start time. Raises OSError."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def children(pid: int) -> list[int]:
    """The children of all threads of a process, zombies included; empty when it is gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError:
        own = os.getpid()
        if not os.path.exists(f"/proc/{own}/task/{own}/children"):  # a kernel built without that file
            return children_by_scan(pid)
    return found


def children_by_scan(pid: int) -> list[int]:
    """The same from every /proc/PID/stat: slower, works on every Linux."""
    parent, found = b"%d" % pid, []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and stat(int(name))[1] == parent:
                found.append(int(name))
        except OSError:
            pass  # it ended while we looked
    return found


def descendants(pid: int) -> list[int]:
    """Children, their children and so on, parents first, as of one moment."""
    found = children(pid)
    for child in found:  # grows while we walk it
        found += children(child)
    return found


def ended_children(*, block: bool) -> Iterator[tuple[int, int, resource.struct_rusage]]:
    """Reap every child that has ended, waiting for the first if asked: process id, wait status, usage."""
    options = 0 if block else os.WNOHANG
    while True:
        try:
            pid, status, usage = os.wait4(-1, options)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status, usage
        options = os.WNOHANG


def _kill(pid: int) -> bool:
    """End a child that was not reaped. False for another user's process (`sudo`), which ends when it will."""
    try:
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        return False
    return True


class Tally:
    """How the command ended (`status`, None before that), and what it and its descendants used."""

    def __init__(self, command: int = 0) -> None:
        self.command = command
        self.status: int | None = None
        self.max_rss = 0
        self.cpu_s = 0.0

    def reap(self, *, block: bool) -> None:
        """Collect and count the children that have ended, adopted ones included."""
        for pid, status, usage in ended_children(block=block):
            self.max_rss = max(self.max_rss, usage.ru_maxrss * (1024 if LINUX else 1))
            self.cpu_s += usage.ru_utime + usage.ru_stime
            if pid == self.command:
                self.status = status

    def kill_all(self) -> int:
        """Kill until no child is left that we may kill; how many processes that took.

        A killed child's own children become ours, so each round reaches the next level and what was forked
        meanwhile. A direct child that we have not reaped cannot be a reused process id.
        """
        killed: set[int] = set()
        self.reap(block=False)
        if not LINUX:
            return self._kill_group()
        while own := [pid for pid in children(os.getpid()) if _kill(pid)]:
            killed.update(own)
            self.reap(block=True)
        return len(killed)

    def _kill_group(self) -> int:
        try:
            os.killpg(self.command, signal.SIGKILL)
        except OSError:
            pass  # nobody left in it
        while self.status is None:
            self.reap(block=True)
        return 0


def signal_tree(sig: int) -> None:
    """Send a signal to every descendant, through a pidfd so that none is a reused process id."""
    family = {os.getpid()}
    for pid in descendants(os.getpid()):
        try:
            pidfd = os.pidfd_open(pid)
            try:
                if int(stat(pid)[1]) in family:
                    signal.pidfd_send_signal(pidfd, sig)
                    family.add(pid)
            finally:
                os.close(pidfd)
        except OSError:
            pass  # it ended meanwhile


@cache  # loading it again would touch memory in every keeper
def _prctl_call() -> Callable[..., int]:
    import ctypes  # here, so that importing this module for its facts stays cheap

    return ctypes.CDLL(None).prctl


def prctl(option: int, value: int | bytes) -> None:
    if LINUX and _prctl_call()(option, value, 0, 0, 0) != 0:
        raise OSError(f"prctl({option}) failed")


def _wake_pipe() -> int:
    """A descriptor that becomes readable when a child ends."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    return readable


def _say(channel: int, line: str) -> None:
    try:
        os.write(channel, line.encode() + b"\n")
    except OSError:
        pass  # the engine is gone, which is noticed where we read


def _execute(keeper: int, channel: int, stdio: list[int], status: int) -> None:
    """Become the command. To `status`, which exec closes, go 20 bytes of start time, then what failed."""
    stage = "fork"
    try:
        os.setsid()
        prctl(SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(127)  # the keeper died before it was asked to take us along
        os.write(status, b"%-20d" % (int(stat(os.getpid())[19]) if LINUX else 0))
        with open(channel, "rb", closefd=False) as file:
            size = int.from_bytes(file.read(8), "big")
            body = file.read(size)
        if len(body) < max(size, 1):
            os._exit(127)  # the engine gave up
        cwd, argv, env = decode_request(body)
        stage = "cwd"
        os.chdir(cwd)
        stage = "program"
        for target, fd in enumerate(stdio):
            os.dup2(fd, target)
        signal.set_wakeup_fd(-1)
        for sig in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(sig, signal.SIG_DFL)  # an ignored one would stay ignored across exec
        os.execvpe(argv[0], argv, env)
    except OSError as error:
        number = error.errno or 0
    except ValueError:
        number = errno.EINVAL  # what no program can be given
    os.write(status, f"failed {stage} {number}".encode())
    os._exit(127)


def _launch(channel: int, stdio: list[int]) -> tuple[int, str]:
    """Fork and exec the command: its process id, and the line to say."""
    keeper = os.getpid()
    readable, writable = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        return 0, f"failed fork {error.errno}"
    if pid == 0:
        _execute(keeper, channel, stdio, writable)
    for fd in (writable, *stdio):
        os.close(fd)
    start_time = int(os.read(readable, 20) or 0)  # nothing: killed already
    failure = os.read(readable, 100).decode()
    os.close(readable)
    if failure:
        os.waitpid(pid, 0)
        return 0, failure
    return pid, f"started {pid} {start_time} {keeper}"


def _obey(channel: int, tally: Tally) -> bool:
    """Send the signals asked for. False when the engine has closed the channel."""
    try:
        orders = os.read(channel, 4096)
    except OSError:
        return False
    for order in orders:
        try:
            if order & TREE and LINUX:
                signal_tree(order & ~TREE)
            elif tally.status is None:  # not reaped, so the group is still the command's
                os.killpg(tally.command, order & ~TREE)
        except OSError:
            pass  # no such signal, or another user's process
    return bool(orders)


def _keep(channel: int, stdio: list[int], life: int) -> None:
    """Run one command to its end and leave nothing of it."""
    os.setsid()
    prctl(SET_CHILD_SUBREAPER, 1)
    wake = _wake_pipe()
    command, line = _launch(channel, stdio)
    _say(channel, line)
    if not command:
        return
    tally = Tally(command)
    poller = select.poll()
    for fd in (channel, life, wake):
        poller.register(fd, select.POLLIN)
    while tally.status is None:
        ready = [fd for fd, _ in poller.poll()]
        if life in ready or (channel in ready and not _obey(channel, tally)):
            tally.kill_all()
            return  # nobody to report to, or no guard: the end of the channel says "lost"
        if wake in ready:
            os.read(wake, 4096)
            tally.reap(block=False)
    leftovers = tally.kill_all()
    _say(channel, f"ended {tally.status} {tally.max_rss} {tally.cpu_s:.6f} {leftovers}")


def _fork_keeper(channel: int, stdio: list[int], life: int) -> int:
    """The keeper's process id. It holds what it needs: not the engine's socket, not another's channel."""
    pid = os.fork()
    if pid:
        return pid
    try:
        needed = (0, 1, 2, channel, life, *stdio)
        for name in os.listdir("/dev/fd"):
            if int(name) not in needed:
                try:
                    os.close(int(name))
                except OSError:
                    pass  # the descriptor of the listing itself
        _keep(channel, stdio, life)
    finally:
        os._exit(0)


class _Guard:
    def __init__(self, engine: socket.socket) -> None:
        self.engine = engine
        self.wake = _wake_pipe()
        self.life, self._life_end = os.pipe()
        self.channels: dict[int, int] = {}  # of the keepers that run, by process id
        self.closing: list[int] = []  # channels of keepers that ended

    def run(self) -> None:
        """Start keepers and clean up after them until the engine is gone, then end everything."""
        poller = select.poll()
        poller.register(self.engine, select.POLLIN)
        poller.register(self.wake, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poller.poll()]
            if self.wake in ready:
                os.read(self.wake, 4096)
                self.sweep()
            if self.engine.fileno() in ready and not self.accept():
                break
        os.close(self._life_end)  # the keepers start killing, each on its own
        if LINUX:
            Tally().kill_all()
        else:
            while list(ended_children(block=True)):
                pass

    def accept(self) -> bool:
        """Fork a keeper for one command. False when the engine is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self.engine, 1, _DESCRIPTORS)
        except ConnectionError:
            return False
        for fd in fds:
            os.set_inheritable(fd, False)
        if len(fds) == _DESCRIPTORS:  # fewer: too many open files, and the engine reads the channel's end
            channel = fds[0]
            try:
                self.channels[_fork_keeper(channel, fds[1:], self.life)] = channel
                fds.remove(channel)
            except OSError as error:
                _say(channel, f"failed fork {error.errno}")
        for fd in fds:
            os.close(fd)
        return bool(data)

    def sweep(self) -> None:
        """Collect keepers that ended and kill what a killed keeper left behind.

        Orphans are ours before their keeper can be collected, and the end of each wakes us again.
        """
        ended = [pid for pid, _, _ in ended_children(block=False)]
        self.closing += [self.channels.pop(pid) for pid in ended if pid in self.channels]
        orphans = set(children(os.getpid())) - self.channels.keys() if LINUX else set()
        if not [pid for pid in orphans if _kill(pid)]:
            for channel in self.closing:
                os.close(channel)
            self.closing.clear()


def main(fd: int) -> None:
    """Guard for the engine at the other end of socket `fd`; returns when nothing is left."""
    engine = socket.socket(fileno=fd)
    engine.set_inheritable(False)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(sig, signal.SIG_IGN)  # an agent's `pkill python` must not end all others; our pipes end us
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # only its wake-up counts; keepers inherit it
    prctl(SET_CHILD_SUBREAPER, 1)
    prctl(SET_NAME, b"shopfloor-guard")  # not "python", for the same `pkill`
    gc.disable()
    gc.freeze()  # a collection would touch, and so copy, every page shared with the keepers
    _Guard(engine).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
