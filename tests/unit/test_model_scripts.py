"""The scripted model's scripts: which step answers, what it may say, and which tool it takes."""

import pytest

from shopfloor.testing.model import check_scripts
from shopfloor.testing.model.script import choose
from shopfloor.testing.model.talk import JSON, Ask, Call, Tool, Turn, Usage
from shopfloor.testing.model.tools import shell, write

SCRIPTS = {"s": [{"bash": "echo {what}"}, {"say": "wait", "bash": "ls"}, {"text": "in {cwd}"}]}


BASH = Tool("bash", {"properties": {"command": {"type": "string"}}})


def ask(*turns: tuple[str, str], system: str = "", tools: tuple[Tool, ...] = (BASH,)) -> Ask:
    return Ask("m", stream=False, turns=tuple(Turn(*turn) for turn in turns), tools=tools, system=system)


MARK = ("user", "Please. [[script s what=x]]")
CALLED = ("assistant", ""), ("tool", "x")


@pytest.mark.parametrize(
    ("turns", "step"),
    [
        ([MARK], 0),
        ([MARK, *CALLED], 1),
        ([MARK, *CALLED, *CALLED], 2),
        ([MARK, ("assistant", "words"), ("assistant", ""), ("assistant", ""), ("tool", "x"), ("tool", "x")], 1),
        ([MARK, *CALLED, ("assistant", "done"), ("user", "go on")], 2),
        ([MARK, *CALLED, ("user", "again: [[script s what=y]]")], 0),
        ([MARK, ("assistant", "I shall do [[script s what=z]]"), ("user", "yes")], 1),
    ],
)
def test_the_step_is_the_number_of_turns_since_the_marker(turns: list[tuple[str, str]], step: int) -> None:
    chosen = choose(SCRIPTS, ask(*turns), idle="ok")
    assert (chosen.script, chosen.index) == ("s", step)


def test_parameters_and_the_folder_are_filled_in() -> None:
    assert choose(SCRIPTS, ask(MARK), idle="ok").step == {"bash": "echo x"}
    done = MARK, *CALLED, *CALLED
    assert choose(SCRIPTS, ask(*done, system="Working directory: /tmp/w."), idle="").step == {"text": "in /tmp/w"}
    assert choose(SCRIPTS, ask(("user", "<cwd>/tmp/v</cwd>"), *done), idle="").step == {"text": "in /tmp/v"}
    assert choose(SCRIPTS, ask(*done), idle="").step == {"text": "in ."}
    named = ("user", "[[script s cwd=/a]]"), *CALLED, *CALLED
    assert choose(SCRIPTS, ask(*named, system="Working directory: /tmp/w"), idle="").step == {"text": "in /a"}


def test_what_no_step_answers_says_so() -> None:
    assert choose(SCRIPTS, ask(("user", "title?")), idle="ok").step == {"text": "ok"}
    unknown = choose(SCRIPTS, ask(("user", "[[script t]]")), idle="ok").step
    assert unknown == {"text": "there is no script 't'; known are s"}
    over = choose(SCRIPTS, ask(MARK, *CALLED * 3), idle="ok").step
    assert over == {"text": "script 's' is at its end"}


def test_an_answer_has_words_calls_and_tokens() -> None:
    step: JSON = {"say": "w", "calls": [{"bash": "a"}, {"call": {"name": "n", "input": {"k": 1}}}]}
    chosen = choose({"s": [{**step, "usage": {"in": 7, "cached": 2}, "stop": "max_tokens"}]}, ask(MARK), idle="")
    answer = chosen.answer(ask(MARK))
    assert answer.text == "w"
    assert answer.calls == (Call("bash", {"command": "a"}), Call("n", {"k": 1}))
    assert answer.usage == Usage(fresh=7, cached=2, out=50)
    assert answer.usage.all_in == 9
    assert answer.stop == "max_tokens"
    assert chosen.answer(ask(MARK, tools=())).calls == ()


def tool(name: str, *properties: str, required: tuple[str, ...] = ()) -> Tool:
    return Tool(name, {"properties": {key: {"type": "string"} for key in properties}, "required": list(required)})


@pytest.mark.parametrize(
    ("offered", "call"),
    [
        (tool("Bash", "command", "timeout", required=("command",)), Call("Bash", {"command": "ls"})),
        (
            tool("bash", "command", "description", required=("command", "description")),
            Call("bash", {"command": "ls", "description": "scripted command"}),
        ),
        (tool("exec_command", "cmd", "workdir"), Call("exec_command", {"cmd": "ls"})),
        (tool("developer__shell", "command"), Call("developer__shell", {"command": "ls"})),
        (tool("run_shell_command", "command"), Call("run_shell_command", {"command": "ls"})),
        (
            Tool("shell", {"properties": {"command": {"type": "array"}}}),
            Call("shell", {"command": ["bash", "-lc", "ls"]}),
        ),
        (tool("Read", "file_path"), Call("bash", {"command": "ls"})),
    ],
)
def test_a_command_goes_to_the_shell_tool_that_is_offered(offered: Tool, call: Call) -> None:
    assert shell("ls", [tool("other"), offered]) == call


def test_a_freeform_shell_gets_a_program() -> None:
    call = shell('echo "x"', [Tool("exec", freeform=True)])
    assert call.name == "exec"
    assert isinstance(call.arguments, str)
    assert r'{"cmd": "echo \"x\""}' in call.arguments


@pytest.mark.parametrize(
    ("offered", "call"),
    [
        (tool("Write", "file_path", "content"), Call("Write", {"file_path": "a", "content": "b\n"})),
        (tool("write", "filePath", "content"), Call("write", {"filePath": "a", "content": "b\n"})),
        (tool("write_file", "file_path", "content"), Call("write_file", {"file_path": "a", "content": "b\n"})),
        (tool("developer__write", "path", "content"), Call("developer__write", {"path": "a", "content": "b\n"})),
        (tool("bash", "command"), Call("bash", {"command": "printf %s 'b\n' > a"})),
    ],
)
def test_a_file_goes_to_the_tool_that_writes_one(offered: Tool, call: Call) -> None:
    assert write("a", "b\n", [tool("read", "path"), offered]) == call


@pytest.mark.parametrize(
    ("step", "named"),
    [
        ({"wrte": {}}, "unknown key 'wrte'"),
        ({"text": "a", "bash": "b"}, "exactly one of"),
        ({"say": "a"}, "exactly one of"),
        ({"text": 1}, "text = 1 has the wrong type"),
        ({"text": "a", "delay": True}, "delay = True has the wrong type"),
        ({"write": {"path": "a"}}, "write needs 'content'"),
        ({"text": "a", "usage": {"input": 1}}, "usage has an unknown key 'input'"),
        ({"fail": {"status": "429"}}, "fail.status = '429' has the wrong type"),
        ({"calls": [{"bash": "a"}, {"bash": 1}]}, "bash = 1 has the wrong type"),
        ("text", "'text' is no step"),
    ],
)
def test_a_script_that_is_off_is_refused_by_name(step: JSON, named: str) -> None:
    with pytest.raises(ValueError, match=r"script 'x', step 2: ") as refused:
        check_scripts({"s": SCRIPTS["s"], "x": [{"text": "fine"}, step]})
    assert named in str(refused.value)
