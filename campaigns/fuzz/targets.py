"""All targets by name."""

from campaigns.fuzz import gateway, logs, programs, prompts, protocol, streams, talk, views

MODULES = (logs, views, prompts, streams, protocol, programs, talk, gateway)
TARGETS = {target.name: target for module in MODULES for target in module.TARGETS}
