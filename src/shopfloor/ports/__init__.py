"""The seams: what the engine asks for, and the small data that crosses.

Agent, Workspaces, Store, Runner, Verifier, Lander and Gateway have at most five methods each. Drivers live one to a
file in ``agents/``, ``workspaces/``, ``stores/``, ``runners/``, ``verifiers/`` and ``landers/``; ``shopfloor.testing``
has one conformance suite for each seam. Durations are seconds, times are wall seconds since the epoch, money is USD,
paths are absolute.
"""

from shopfloor.ports.agents import (
    Agent,
    Answered,
    Answering,
    Call,
    Capabilities,
    Delivery,
    Handle,
    Kind,
    Launch,
    Outliving,
    Probe,
    Profile,
    Report,
    Route,
    Server,
)
from shopfloor.ports.clock import Clock
from shopfloor.ports.door import Caller, Callers, Door, Service
from shopfloor.ports.gateway import Bill, Gateway, Limit, ModelCall, Quota
from shopfloor.ports.landing import CheckJob, Landed, Lander, Mirrored, Proposal, Target, Verifier
from shopfloor.ports.runner import Fact, Job, Phase, Runner
from shopfloor.ports.store import CONTROLLER, Query, Store
from shopfloor.ports.workspaces import Claim, Orphan, Snapshot, Workspace, Workspaces

__all__ = [
    "CONTROLLER",
    "Agent",
    "Answered",
    "Answering",
    "Bill",
    "Call",
    "Caller",
    "Callers",
    "Capabilities",
    "CheckJob",
    "Claim",
    "Clock",
    "Delivery",
    "Door",
    "Fact",
    "Gateway",
    "Handle",
    "Job",
    "Kind",
    "Landed",
    "Lander",
    "Launch",
    "Limit",
    "Mirrored",
    "ModelCall",
    "Orphan",
    "Outliving",
    "Phase",
    "Probe",
    "Profile",
    "Proposal",
    "Query",
    "Quota",
    "Report",
    "Route",
    "Runner",
    "Server",
    "Service",
    "Snapshot",
    "Store",
    "Target",
    "Verifier",
    "Workspace",
    "Workspaces",
]
