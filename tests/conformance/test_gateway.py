"""The gateway is held to its port's public suite."""

from pathlib import Path

import pytest

from shopfloor.config.accounts import gateway_settings
from shopfloor.gateway.client import GatewayProcess
from shopfloor.gateway.words import Start
from shopfloor.ports import Gateway
from shopfloor.spawn import Guard
from shopfloor.testing.gateway import CASES, KEY, run_case


def make(guard: Guard, url: str, folder: Path) -> Gateway:
    names = {"main": "anthropic", "oai": "openai", "gem": "gemini"}
    accounts = {name: {"dialect": dialect, "url": url, "key": "MAIN_KEY"} for name, dialect in names.items()}
    start = Start(settings=gateway_settings({"accounts": accounts}), ledger=str(folder / "ledger.jsonl"))
    return GatewayProcess(guard, start, environment={"MAIN_KEY": KEY}, folder=folder)


@pytest.mark.parametrize("case", CASES)
async def test_gateway(case: str, tmp_path: Path) -> None:
    await run_case(case, make, tmp_path)
