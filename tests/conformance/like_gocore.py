"""A program with GOCore's command line: its task comes as a word, or in the file that the word names at its end."""

import argparse
import os
import sys
from pathlib import Path

AGENT = Path(__file__).parents[2] / "src" / "shopfloor" / "testing" / "scripted_agent.py"

options = argparse.ArgumentParser()
options.add_argument("--headless", action="store_true", required=True)
options.add_argument("--task", required=True)
options.add_argument("--output", type=Path, required=True)
options.add_argument("--model", default="")
given = options.parse_args()

task = given.task
if task.startswith("Your task is long"):
    task = Path(task.rpartition(" ")[2]).read_bytes().decode()
if sys.stdin.read():
    sys.exit("there is something on stdin")
given.output.write_text(os.environ.get("CONFORMANCE_API_KEY", ""))  # as the real one: keys, in clear text

whole = os.memfd_create("task")
os.write(whole, task.encode())
os.lseek(whole, 0, os.SEEK_SET)
os.dup2(whole, 0)
told = {name: value for name, value in os.environ.items() if name != "LC_CTYPE"}  # the interpreter has set it
if "MINI_API_BASE" in told:
    told |= {"SCRIPTED_MODEL_URL": told["MINI_API_BASE"], "SCRIPTED_MODEL_KEY": told["MINI_API_KEY"]}
os.execve(sys.executable, [sys.executable, "-I", "-S", str(AGENT)], told)
