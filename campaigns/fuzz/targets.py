"""All targets by name."""

from campaigns.fuzz import logs, programs, prompts, streams, views

TARGETS = {target.name: target for module in (logs, views, prompts, streams, programs) for target in module.TARGETS}
