"""What agents say from their shell, and the mail of everybody."""

from __future__ import annotations

from typing import Any

import click

from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.words import block, clean
from shopfloor.config import environment, speaker
from shopfloor.mcp.verbs import MOST_WAIT_S, speak

wait_option = click.option(
    "--wait", "wait_s", type=click.FloatRange(0, MOST_WAIT_S), default=0.0, metavar="S", help="Wait so many seconds."
)


def _say(edge: Edge, what: str, **arguments: Any) -> None:
    """As the agent that this process belongs to."""
    given = {name: value for name, value in arguments.items() if value not in ("", 0.0)}
    reply = speak(what, given, environment())
    if edge.json:
        edge.put_json({name: value for name, value in reply.items() if name != "ok"})
    else:
        edge.put(block(str(reply.get("text", ""))))


@verb(example="shopfloor assignment")
def assignment(edge: Edge) -> None:
    """Inside an agent's attempt: say which order it works on, what that asks for, and how it is checked."""
    reply = speak("assignment", {}, environment())
    if edge.json:
        edge.put_json({name: value for name, value in reply.items() if name != "ok"})
        return
    unread = reply.get("unread")
    edge.put(clean(str(reply.get("text"))))
    edge.put(clean(f"{reply.get('name')}: {reply.get('title')}"))
    for command in reply.get("checks", []):
        edge.put(f"check: {clean(str(command))}")
    if unread:
        edge.put(f"unread: {unread}, read with: shopfloor inbox")
    edge.put(f"\n{block(str(reply.get('prompt', '')))}")


@verb(example="shopfloor ready")
def ready(edge: Edge) -> None:
    """List the orders that are ready and that nobody works on, the next ones first."""
    found = edge.call(lambda floor: floor.ready())
    if edge.json:
        edge.put_json({"orders": found})
    for one in found if not edge.json else ():
        named = "  ".join(dict.fromkeys((clean(one["name"]), one["id"])))  # an order of no run has its id for a name
        edge.put(f"{named}  {clean(one['title'])}".rstrip())
    if not found and not edge.json:
        edge.put("no order is ready", err=True)


@verb(example="shopfloor progress 'half of the tests pass'")
@click.argument("text")
def progress(edge: Edge, *, text: str) -> None:
    """Inside an agent's attempt: say in one line how far it is. status and watch show it."""
    _say(edge, "progress", text=text)


@verb(example="shopfloor done 'the old option still works'")
@click.argument("text", default="")
def done(edge: Edge, *, text: str) -> None:
    """Inside an agent's attempt: ask for its work to be verified. The checks decide whether it is done."""
    _say(edge, "done", text=text)


@verb(example="shopfloor ask 'Which of the two formats?' --wait 60")
@click.argument("question")
@wait_option
def ask(edge: Edge, *, question: str, wait_s: float) -> None:
    """Inside an agent's attempt: put a question to a person. Who has no answer ends, and is started again with it."""
    _say(edge, "ask", question=question, wait_s=wait_s)


@verb(example="shopfloor inbox")
@wait_option
def inbox(edge: Edge, *, wait_s: float) -> None:
    """Show what was written to you, as an agent or as a person. Each message is shown once."""
    if speaker(environment()) is not None:
        _say(edge, "inbox", wait_s=wait_s)
        return
    found = edge.call(lambda floor: floor.mail.inbox())
    if edge.json:
        edge.put_json({"messages": found})
    else:
        edge.put("\n\n".join(map(letter, found)) or "no new messages")


@verb(example="shopfloor send fix-login 'The other one renames the option: wait for it.'")
@click.argument("to")
@click.argument("body")
@click.option("-s", "--subject", default="", metavar="TEXT", help="What it is about; default: its beginning.")
@click.option(
    "--priority", type=click.Choice(("urgent", "normal", "low")), default="normal", help="The urgent are read first."
)
def send(edge: Edge, *, to: str, body: str, subject: str, priority: str) -> None:
    """Write to an order's agent, or to a person (human, or human:NAME). It is kept until it was read."""
    if speaker(environment()) is not None:
        _say(edge, "send", to=to, body=body, subject=subject, priority=priority)
        return
    sent = edge.call(lambda floor: floor.mail.send(to, body, subject=subject, priority=priority))
    if edge.json:
        edge.put_json(sent)
    else:
        edge.put(f"sent to {clean(sent.to)}")


def letter(message: Any) -> str:
    """A message as a person reads it."""
    head = f"From: {clean(message.sender)}\nSubject: {clean(message.subject)}"
    return f"{head}\n\n{block(message.body)}"


@verb(example="shopfloor mcp")
def mcp(edge: Edge) -> int:  # noqa: ARG001 - every verb takes it
    """Serve the same verbs to an agent that speaks MCP, on stdin and stdout. Agents are given it by themselves."""
    from shopfloor.mcp.server import main

    return main()
