"""The scripted agent as a program for a terminal: it is typed its prompt, or reads it from the file that is named.

    scripted_terminal.py FILE              follows the script in FILE, and ends
    scripted_terminal.py                   follows the script that is typed to it, and ends
    scripted_terminal.py --settings FILE   as agents with hooks do: stays until ``/exit``, and runs the hooks of FILE

A prompt is typed as one bracketed paste and Enter. With hooks it tells them of its start, of each prompt, before and
after each deed, of questions (``1`` allows, Escape refuses), of the end of each turn, and of its end; Escape ends what
it hangs in. Words that it does not know are left out, so that it can be called like an agent. The deeds are those of
:mod:`shopfloor.testing.scripted_agent`.
"""

import json
import os
import select
import subprocess
import sys
import termios
import tty
import uuid
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from shopfloor.testing import scripted_agent as scripted

BEGIN, END = b"\x1b[200~", b"\x1b[201~"
ESCAPE, ENTER = b"\x1b", b"\r"
ALONE_S = 0.1
"""an Escape that nothing follows for so long is the key"""


class Keyboard:
    """What is typed, as keys and pasted texts."""

    def __init__(self, *, raw: bool) -> None:
        self._held = b""
        if raw:
            tty.setraw(0, termios.TCSANOW)
            modes = termios.tcgetattr(0)
            modes[1] |= termios.OPOST  # lines still end as lines
            termios.tcsetattr(0, termios.TCSANOW, modes)
        else:
            tty.setcbreak(0, termios.TCSANOW)
            modes = termios.tcgetattr(0)
            modes[0] &= ~termios.ICRNL  # Enter is Enter
            termios.tcsetattr(0, termios.TCSANOW, modes)
        os.write(1, b"\x1b[?2004h> ")

    def read(self, wait_s: float | None = None) -> bytes:
        """A key, or a paste with its brackets; empty when nothing came."""
        while not self._whole():
            if not select.select([0], [], [], ALONE_S if self._held else wait_s)[0]:
                break
            piece = os.read(0, 1 << 16)
            if not piece:
                raise SystemExit(1)
            self._held += piece
        size = self._size() or min(1, len(self._held))
        key, self._held = self._held[:size], self._held[size:]
        return key

    def _whole(self) -> bool:
        return self._size() > 0

    def _size(self) -> int:
        """How long the first key is; 0: that cannot be told yet."""
        if BEGIN.startswith(self._held[: len(BEGIN)]) and self._held:
            end = self._held.find(END) if self._held.startswith(BEGIN) else -1
            return end + len(END) if end >= 0 else 0
        return min(1, len(self._held))


class Terminal(scripted.ScriptedAgent):
    """The scripted agent, with a keyboard and hooks."""

    def __init__(self, hooks: dict[str, Any], keyboard: Keyboard) -> None:
        super().__init__(generation=1)
        self.hooks = hooks
        self.keyboard = keyboard
        self.session = str(uuid.uuid4())
        self.typed = b""

    def hook(self, name: str, **told: Any) -> None:
        """Run the commands for one hook, each with what there is to tell on its stdin."""
        given = json.dumps({"hook_event_name": name, "session_id": self.session, **told}).encode(errors="replace")
        for group in self.hooks.get(name, []):
            for hook in group["hooks"]:
                subprocess.run(["/bin/sh", "-c", hook["command"]], input=given, check=False)

    def emit(self, kind: str, **data: Any) -> None:
        """What it says on its screen, and the hooks that go with that."""
        super().emit(kind, **data)
        if kind == "step":
            deed = {"tool_name": "Deed", "tool_input": {"action": data.get("action", "")}}
            self.hook("PreToolUse", **deed)
            self.hook("PostToolUse", **deed)
        elif kind == "log":
            self.hook("Notification", message=data.get("content", ""))

    def prompt_typed(self) -> str:
        """The next text that is typed and sent off with Enter."""
        while (key := self.keyboard.read()) != ENTER:
            if key.startswith(BEGIN):
                self.typed += key.removeprefix(BEGIN).removesuffix(END).replace(b"\r", b"\n")
            elif key != ESCAPE:
                self.typed += key
        prompt, self.typed = self.typed.decode(errors="replace"), b""
        return prompt

    def do_hang(self, value: bool, deed: dict[str, Any]) -> Any:  # noqa: FBT001 - the value in the script
        if not self.hooks:
            return super().do_hang(value, deed)
        self.emit("log", level="info", content="hangs until it is stopped")
        while True:
            key = self.keyboard.read()
            if key == ESCAPE:
                raise Interrupted
            if key.startswith(BEGIN):
                self.typed += key.removeprefix(BEGIN).removesuffix(END)
            elif key == ENTER:
                self.hook("UserPromptSubmit", prompt=self.typed.decode(errors="replace"))
                super().emit("log", level="info", content=f"was told {self.typed.decode(errors='replace')}")
                self.typed = b""

    def do_ask(self, question: str, deed: dict[str, Any]) -> int | None:
        if not self.hooks:
            return super().do_ask(question, deed)
        tool = {"tool_name": "Ask", "tool_input": {"question": question}}
        self.hook("PermissionRequest", **tool)
        while (key := self.keyboard.read()) not in (b"1", ESCAPE):
            super().emit("log", level="info", content=f"ignored {key!r}")
        if key == ESCAPE:
            raise Interrupted
        self.hook("PostToolUse", **tool)
        return None

    def end(self, status: str, result: str, code: int) -> int:
        """The turn's end."""
        code = super().end(status, result, code)
        self.hook("Stop" if code == 0 else "StopFailure", last_assistant_message=result)
        return code

    def turn(self, prompt: str) -> int:
        """Follow one prompt; its exit code."""
        self.prompt = prompt.encode()
        try:
            deeds, self.silent = scripted.read_script(prompt)
            self.emit("start", task=prompt[:200], model="none")
            return self.follow(deeds)
        except Interrupted:
            super().emit("log", level="info", content="interrupted")
            return 0
        except (scripted.ScriptError, OSError) as error:
            return self.end("failed", str(error), 1)

    def stay(self) -> int:
        """One prompt after the other, until it is told to go."""
        self.hook("SessionStart", source="startup")
        while (prompt := self.prompt_typed()).strip() != "/exit":
            self.hook("UserPromptSubmit", prompt=prompt)
            self.turn(prompt)
        self.hook("SessionEnd", reason="prompt_input_exit")
        return 0


class Interrupted(Exception):
    """Somebody pressed Escape."""


def main() -> int:
    """Do as the module says; the exit code."""
    words = sys.argv[1:]
    settings = words[words.index("--settings") + 1] if "--settings" in words else ""
    if words and not words[0].startswith("-"):
        with Path(words[0]).open("rb") as prompt:
            os.dup2(prompt.fileno(), 0)
        return scripted.main()
    if settings:
        return Terminal(json.loads(Path(settings).read_text())["hooks"], Keyboard(raw=True)).stay()
    typed = Terminal({}, Keyboard(raw=False))
    held = os.memfd_create("prompt")
    os.write(held, typed.prompt_typed().encode())
    os.lseek(held, 0, os.SEEK_SET)
    os.dup2(held, 0)
    return scripted.main()


if __name__ == "__main__":
    sys.exit(main())
