"""All targets by name."""

from campaigns.fuzz import logs, programs, prompts, protocol, streams, talk, views

_MODULES = (logs, programs, prompts, protocol, streams, talk, views)
TARGETS = {target.name: target for module in _MODULES for target in module.TARGETS}
