"""What a script wants, by the tools that an agent offers: each names them, and their parameters, its own way."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence

from shopfloor.testing.model.talk import JSON, Call, Tool

_SHELLS = {"bash", "run_shell_command", "exec_command", "shell", "shell_command", "execute", "run_command"}
_WRITERS = {"write", "write_file"}
_PATHS = ("file_path", "filePath", "path")


def calls_of(step: JSON, tools: Sequence[Tool]) -> Iterator[Call]:
    """The tool calls of a step."""
    if "calls" in step:
        for inner in step["calls"]:
            yield from calls_of(inner, tools)
    elif "write" in step:
        yield write(step["write"]["path"], step["write"]["content"], tools)
    elif "bash" in step:
        yield shell(step["bash"], tools)
    elif "call" in step:
        yield Call(step["call"]["name"], step["call"].get("input", {}))


def shell(command: str, tools: Sequence[Tool]) -> Call:
    """A command by the shell tool; by a tool called ``bash`` when none is offered, which the agent then refuses."""
    for tool in tools:
        if _last_word(tool.name) in _SHELLS and not tool.freeform:
            return Call(tool.name, _shell_arguments(command, tool))
        if tool.freeform and tool.name == "exec":
            # It takes a program, in which the shell is a function.
            program = f"const r = await tools.exec_command({json.dumps({'cmd': command})});\ntext(r.output);\n"
            return Call(tool.name, program)
    return Call("bash", {"command": command})


def _shell_arguments(command: str, tool: Tool) -> JSON:
    if "cmd" in tool.properties:
        return {"cmd": command}
    wanted = tool.properties.get("command")
    if isinstance(wanted, dict) and wanted.get("type") == "array":
        return {"command": ["bash", "-lc", command]}
    arguments: JSON = {"command": command}
    for name in tool.schema.get("required") or ():
        arguments.setdefault(name, "scripted command" if name == "description" else "")
    return arguments


def write(path: str, content: str, tools: Sequence[Tool]) -> Call:
    """A file by the tool that writes whole files, else by the shell."""
    for tool in tools:
        if _last_word(tool.name) in _WRITERS and "content" in tool.properties:
            for key in _PATHS:
                if key in tool.properties:
                    return Call(tool.name, {key: path, "content": content})
    return shell(f"printf %s {shlex.quote(content)} > {shlex.quote(path)}", tools)


def _last_word(name: str) -> str:
    """Without the name of the server or extension that a tool belongs to."""
    return name.lower().rpartition("__")[2]
