"""All targets by name."""

from campaigns.fuzz import logs, programs, prompts, protocol, streams, views

TARGETS = {
    target.name: target for module in (logs, views, prompts, streams, protocol, programs) for target in module.TARGETS
}
