"""What tokens cost: by the settings, else by the table that ``genai-prices`` carries; no network is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import genai_prices

from shopfloor.config.accounts import Account, Price
from shopfloor.gateway.usage import Usage

_PROVIDER = {"anthropic": "anthropic", "openai": "openai", "gemini": "google"}
_MILLION = 1_000_000


class Prices:
    """Prices by model. A model of unknown price has none, which is not the same as 0."""

    def __init__(self, own: Mapping[str, Price]) -> None:
        self._own = own
        self._unknown: set[tuple[str, str]] = set()

    def warm(self) -> None:
        """Do now what the first price takes long for."""
        genai_prices.calc_price(genai_prices.Usage(input_tokens=1), "gpt-5", provider_id="openai")

    def cost(self, account: Account, models: tuple[str, ...], usage: Usage) -> float | None:
        """USD for this usage of the first of the models that has a price; None when none has."""
        for model in filter(None, models):
            if own := self._own.get(model):
                cached = own.input if own.cached is None else own.cached
                into = (usage.fresh + usage.written) * own.input + usage.cached * cached
                return (into + usage.out * own.output) / _MILLION
        for model in filter(None, models):
            if (account.base, model) in self._unknown:
                continue
            if (found := self._listed(account, model, usage)) is not None:
                return found
            self._unknown.add((account.base, model))
        return None

    def _listed(self, account: Account, model: str, usage: Usage) -> float | None:
        """By the table: of whom the call went to, of whose dialect it spoke, of whoever has such a model."""
        counts = genai_prices.Usage(
            input_tokens=usage.into,
            cache_read_tokens=usage.cached,
            cache_write_tokens=usage.written,
            cache_write_1h_tokens=usage.written_1h,
            output_tokens=usage.out,
        )
        for name, provider, address in _ways(account, model):
            try:
                if address:
                    found = genai_prices.calc_price(counts, name, provider_api_url=address)
                else:
                    found = genai_prices.calc_price(counts, name, provider_id=provider)
            except (LookupError, ValueError):
                continue
            return float(found.total_price)
        return None


def _ways(account: Account, model: str) -> Iterator[tuple[str, str | None, str | None]]:
    """Name, provider and address to look under. A server of this machine is nobody's but its dialect's."""
    if not account.local:
        yield model, None, account.base
    yield model, _PROVIDER[account.dialect], None
    maker, slash, name = model.partition("/")
    if slash:
        yield name, _PROVIDER.get(maker, maker), None
    if not account.local:
        yield model, None, None
