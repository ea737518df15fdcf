"""The foreman: a conversation that hands out work, and a crew that does it meanwhile."""

from shopfloor.faces.foreman.config import WorkerConfig, load_mount_plan
from shopfloor.faces.foreman.orchestrator import ForemanWorkerOrchestrator

__all__ = ["ForemanWorkerOrchestrator", "WorkerConfig", "load_mount_plan"]
