r"""The scripted model server: real agents at work without any model, any key, any network beyond this machine.

    scripts = {
        "hello": [
            {"say": "I write it.", "write": {"path": "{cwd}/{file}", "content": "hello\n"}},
            {"bash": "git add -A && git commit -qm hello"},
            {"text": "Done."},
        ]
    }
    with Model(scripts) as model:
        ...  # run an agent with model.url as its base URL and any key, prompt: "Do it. [[script hello file=a.txt]]"
        assert [request.step for request in model.requests()] == [0, 1, 2]

It speaks Anthropic Messages, OpenAI Chat Completions, OpenAI Responses and Gemini generateContent on one port,
streaming and not. A request is answered by the step of a script. The script is named by a marker,
``[[script NAME key=value …]]``, in the last message of the user (or system) that has one, else in the system prompt;
the step is the number of the model's turns since that message. So nothing is remembered: any number of agents, retries
and resumed sessions share one server.

A step does one of these:

    text        str; the closing words of a turn
    write       {"path", "content"}; by the tool that the agent offers for it, else by its shell
    bash        str; a command for the agent's shell tool
    call        {"name", "input"}; a tool by its exact name, tools of MCP servers too
    calls       [step, …]; several tool calls in one turn

and may have besides:

    say         str; words before the tool call
    usage       {"in", "out", "cached", "written", "thought"}; tokens. ``in`` is without what was read from the cache
                (``cached``) or written to it (``written``), ``out`` is with ``thought``: the same in every dialect.
                1000 in and 50 out unless given
    stop        a stop reason as Anthropic calls it (``max_tokens``, ``refusal``); the other dialects get their own word
    delay       seconds before the first byte
    hang        seconds between the headers and the body
    slow        seconds between two events of a stream
    drop        true; the connection is cut half-way through
    fail        {"status", "times", "for_s", "headers", "message", "type", "code"}; an error instead, the first
                ``times`` times for the same script, step and parameters, or for ``for_s`` seconds from the first one,
                whoever asks; without either, always. A header may use ``{wait}`` (whole seconds left of ``for_s``),
                ``{reset}`` (its end in Unix seconds) and ``{reset_at}`` (the same in RFC 3339)

Every string may use ``{key}`` of the marker, and ``{cwd}``: the marker's, else what the prompt names as the working
directory, else ``.``. A request without a marker (titles, probes, summaries) gets a short text, and one that offers no
tools never gets a call.

In a network namespace without links: ``python -m shopfloor.testing.model --port 0 --scripts FILE --ready FILE``. Only
the standard library is needed.
"""

from shopfloor.testing.model.log import Request, read_log
from shopfloor.testing.model.script import check_scripts
from shopfloor.testing.model.server import Model

__all__ = ["Model", "Request", "check_scripts", "read_log"]
