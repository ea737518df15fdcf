"""A program like mini-swe-agent 2: it has its command line, and what it does stands in a trajectory, not on stdout."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

AGENT = Path(__file__).parents[2] / "src" / "shopfloor" / "testing" / "scripted_agent.py"
STATUS = {"success": "Submitted"}
SIGNS = {"x": 2, "u": 4, "U": 8}


def task_of(given: argparse.Namespace) -> str:
    if given.task is not None:
        return str(given.task)
    (path,) = [Path(one) for one in given.config if one.endswith("task.yaml")]
    found = re.fullmatch(r'run:\n  task: "(.*)"\n', path.read_text(encoding="ascii"))
    assert found is not None
    escapes = r'\\(?:([uU])([0-9a-f]{4,8})|(["\\]))'
    return re.sub(
        escapes, lambda one: one[3] or chr(int(one[2][: SIGNS[one[1]]], 16)) + one[2][SIGNS[one[1]] :], found[1]
    )


def written(path: Path, messages: list[dict[str, Any]], cost: float, status: str) -> None:
    info = {"model_stats": {"instance_cost": cost, "api_calls": len(messages)}, "exit_status": status}
    path.write_text(json.dumps({"info": info, "messages": messages}))


def work(agent: subprocess.Popen[bytes], path: Path) -> None:
    messages: list[dict[str, Any]] = []
    cost, status = 0.0, ""
    assert agent.stdout is not None
    for line in agent.stdout:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            continue
        data = event["data"]
        match event["type"]:
            case "thought" | "log":
                messages.append({"role": "assistant", "content": data.get("content", "")})
            case "step":
                messages += [
                    {"role": "assistant", "content": "", "extra": {"actions": [{"command": data["action"]}]}},
                    {"role": "tool", "content": "", "extra": {"raw_output": data["output"], "returncode": 0}},
                ]
                cost = data.get("cost_so_far", cost)
            case "finish":
                status = STATUS.get(data["status"], "RepeatedFormatError")
                messages.append({"role": "exit", "content": status})
            case "cost":
                cost = data["total"]
        written(path, messages, cost, status)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--agent-class", choices=["default"], required=True)
    options.add_argument("--config", action="append", required=True)
    options.add_argument("--task")
    options.add_argument("--output", type=Path, required=True)
    given = options.parse_args()
    assert given.config[0] == "mini.yaml"
    if sys.stdin.read():
        sys.exit("there is something on stdin")
    task = task_of(given).encode()
    agent = subprocess.Popen([sys.executable, "-I", "-S", str(AGENT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert agent.stdin is not None
    agent.stdin.write(task)
    agent.stdin.close()
    work(agent, given.output)
    code = agent.wait()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
