"""Checks as shell commands, in a clean and equally prepared checkout of exactly the commit in question."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from shopfloor.domain.errors import Refused, ShopfloorError
from shopfloor.domain.names import printable, slug
from shopfloor.domain.verdict import Check, CheckResult, Decision, Verdict, decide, tally, undecided
from shopfloor.git import Git, write_durably
from shopfloor.ports import CheckJob, Claim, Clock, Workspace, Workspaces
from shopfloor.spawn import Guard

LIMIT_S = 3600.0
LOG_BYTES = 10 << 20
"""Longer output is cut in the middle while it comes in, so that no check can fill the disk."""
TAIL_LINES, TAIL_CHARS = 40, 4000


class CommandVerifier:
    """Port Verifier. At most ``concurrent`` verifications at once; each check has ``limit_s`` seconds."""

    def __init__(
        self,
        workspaces: Workspaces,
        guard: Guard,
        *,
        env: Mapping[str, str],
        clock: Clock,
        concurrent: int = 1,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._workspaces = workspaces
        self._guard = guard
        self._env = dict(env)
        self._clock = clock
        self._limit_s = limit_s
        self._room = asyncio.Semaphore(concurrent)

    async def check(self, job: CheckJob) -> Verdict:
        """Run the checks; what fails is run again on the commit, then on ``job.base``, before it blames anybody."""
        folder = Path(job.evidence)
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True, mode=0o700)
        async with self._room:
            verdict = await self._judge(job, folder)
        evidence = _evidence(job, verdict, self._clock.wall())
        await asyncio.to_thread(write_durably, folder / "verdict.json", evidence)
        return verdict

    async def _judge(self, job: CheckJob, folder: Path) -> Verdict:
        if not job.checks:
            return Verdict(decision=Decision.PASS, commit=job.commit, tree=job.tree, base=job.base)
        tree, results, number, refusals = job.tree, job.known, 0, 0
        while checks := undecided(job.checks, results, job.again):
            prefix = f"again{number}-" if number else ""
            number += 1
            try:
                tree, found = await self._run_all(job, job.commit, checks, folder, prefix, known=results)
            except Refused as problem:
                # Its setup failed. That blames the order only when it fails again, where the base can be set up.
                refusals += 1
                if refusals <= job.again:
                    continue
                blamed = bool(job.base) and job.base != job.commit and await self._can_prepare_base(job, folder)
                return _cannot(job, Decision.FAIL if blamed else Decision.UNSURE, problem)
            except ShopfloorError as problem:
                return _cannot(job, Decision.UNSURE, problem)
            results = tally(results, found)
        if job.base and job.base != job.commit:
            results = await self._again_on_base(job, results, folder)
        return Verdict(decision=decide(results), commit=job.commit, tree=tree, base=job.base, results=results)

    async def _can_prepare_base(self, job: CheckJob, folder: Path) -> bool:
        try:
            await self._run_all(job, job.base, (), folder, "base-")
        except ShopfloorError:
            return False
        return True

    async def _again_on_base(
        self, job: CheckJob, results: tuple[CheckResult, ...], folder: Path
    ) -> tuple[CheckResult, ...]:
        doubtful = {r.command for r in results if r.required and not r.passed}
        last = max((n for n, c in enumerate(job.checks, 1) if c.command in doubtful and not c.own), default=0)
        if not last:
            return results
        # With what comes before it, which may have built what it needs. Nothing is required of the base.
        again = [msgspec.structs.replace(c, own=False, passed_on_base=False) for c in job.checks[:last]]
        try:
            _, reruns = await self._run_all(job, job.base, again, folder, "base-")
        except ShopfloorError:
            return results  # nothing was learnt about the base
        own = {c.command for c in job.checks if c.own}
        on_base = {r.command: r.passed for r in reruns if r.command in doubtful - own}
        return tuple(msgspec.structs.replace(r, base_passed=on_base.get(r.command)) for r in results)

    async def _run_all(
        self,
        job: CheckJob,
        commit: str,
        checks: Sequence[Check],
        folder: Path,
        prefix: str,
        *,
        known: Sequence[CheckResult] = (),
    ) -> tuple[str, tuple[CheckResult, ...]]:
        """The tree that was checked, and how each check went. Raises Refused when setup fails."""
        key = f"{job.key}.{prefix}".rstrip("-.")
        claim = Claim(key=key, commit=commit, purpose="check", log=str(folder / f"{prefix}setup.log"))
        green = {r.command for r in known if r.passed}
        workspace = await self._workspaces.acquire(claim)
        try:
            tree = await asyncio.to_thread(self._tree, workspace, commit, job.tree if commit == job.commit else "")
            results: list[CheckResult] = []
            for number, check in enumerate(checks, 1):
                log = folder / f"{prefix}{number}-{slug(check.command)}.log"
                results.append(await self._run(check, workspace, log, job.timeout_s or self._limit_s))
                red = results[-1].required and not results[-1].passed and check.command not in green
                if job.fail_fast and red:
                    break
            return tree, tuple(results)
        finally:
            await self._workspaces.release(workspace)

    def _tree(self, workspace: Workspace, commit: str, expected: str) -> str:
        """The tree that is really checked out there. Raises ShopfloorError when it is another one."""
        head, tree = Git(Path(workspace.path), base_env=self._env).text("rev-parse", "HEAD", "HEAD^{tree}").split()
        if head != commit or expected not in ("", tree):
            raise ShopfloorError(f"{workspace.path!r} holds {head[:12]} with tree {tree[:12]}, not {commit[:12]}")
        return tree

    async def _run(self, check: Check, workspace: Workspace, log: Path, limit_s: float) -> CheckResult:
        env = {**self._env, "PWD": workspace.path}
        began = self._clock.awake()
        argv = ["/bin/sh", "-c", 'exec /bin/sh -c "$1" 2>&1', "sh", check.command]
        process = await self._guard.spawn(argv, cwd=Path(workspace.path), env=env)
        output = _Output()
        pumps = [asyncio.create_task(output.take(stream)) for stream in (process.stdout, process.stderr) if stream]
        timed_out = False
        try:
            async with asyncio.timeout(limit_s):
                await process.wait()
        except TimeoutError:
            timed_out = True
        finally:
            # Also when this is cancelled in the middle: what the check started must not work on in a reused checkout.
            ended, _ = await process.stop()
            await asyncio.gather(*pumps)
        if ended.lost:
            raise ShopfloorError(f"nobody saw how {check.command!r} ended: the guard was killed")
        duration_s = self._clock.awake() - began
        digest, tail = await asyncio.to_thread(_keep_log, log, output.content())
        return CheckResult(
            command=check.command, passed=ended.code == 0 and not timed_out,
            exit_code=None if timed_out else ended.code, duration_s=duration_s, timed_out=timed_out,
            required=check.own or check.passed_on_base, log=str(log), digest=digest, tail=tail,
        )  # fmt: skip


def _cannot(job: CheckJob, decision: Decision, problem: ShopfloorError) -> Verdict:
    return Verdict(decision=decision, commit=job.commit, tree=job.tree, base=job.base, problem=problem.message)


class _Output:
    """What a check writes: the first and the last half of what may be kept."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._rest: deque[bytes] = deque()
        self._held = self._size = 0

    async def take(self, stream: asyncio.StreamReader) -> None:
        """Read it to its end."""
        while piece := await stream.read(1 << 16):
            self._size += len(piece)
            room = max(0, LOG_BYTES // 2 - len(self._head))
            self._head += piece[:room]
            self._rest.append(piece[room:])
            self._held += len(self._rest[-1])
            while self._held - len(self._rest[0]) >= LOG_BYTES // 2:
                self._held -= len(self._rest.popleft())

    def content(self) -> bytes:
        """All of it, or its beginning and its end with a line between that says how much is missing."""
        missing = self._size - len(self._head) - self._held
        gap = f"\n... {missing} bytes left out ...\n".encode() if missing else b""
        return bytes(self._head) + gap + b"".join(self._rest)


def _keep_log(log: Path, content: bytes) -> tuple[str, str]:
    """Write it durably; its digest and its end."""
    write_durably(log, content)
    end = content[-TAIL_CHARS * 4 :].decode(errors="replace").splitlines()[-TAIL_LINES:]
    return hashlib.sha256(content).hexdigest(), printable("\n".join(end))[-TAIL_CHARS:]


def _evidence(job: CheckJob, verdict: Verdict, wall_s: float) -> bytes:
    """The record that other programs read: VerMAS' overall verdict, with base, commit, tree and digests beside it."""
    counted = [r for r in verdict.results if r.required]
    criteria = [
        {
            "id": f"AC-{number}", "description": r.command, "test_type": "shell", "command": r.command,
            "passed": r.passed, "evidence": {"exit_code": r.exit_code, "stdout": r.tail, "stderr": ""},
            "required": r.required, "log": Path(r.log).name, "sha256": r.digest,
            "duration_ms": round(r.duration_s * 1000), "timed_out": r.timed_out, "base_passed": r.base_passed,
            "failures": r.failures, "flaky": r.flaky,
        }
        for number, r in enumerate(verdict.results, 1)
    ]  # fmt: skip
    record = {
        "work_order_id": job.key.split(".v")[0],
        "timestamp": datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "verdict": "PASS" if verdict.decision is Decision.PASS else "FAIL",
        "criteria": criteria,
        "summary": {
            "total": len(counted), "passed": sum(r.passed for r in counted),
            "failed": sum(not r.passed for r in counted), "audited": 0,
        },
        "decision": verdict.decision.value, "run": job.key, "commit": job.commit,
        "tree": verdict.tree, "base": job.base,
        "problem": verdict.problem,
    }  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
