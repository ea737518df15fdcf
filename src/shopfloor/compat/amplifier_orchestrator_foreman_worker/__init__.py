"""The foreman and its crew under the name that programs for Amplifier import."""

from .config import WorkerConfig, load_mount_plan
from .orchestrator import ForemanWorkerOrchestrator

__all__ = ["ForemanWorkerOrchestrator", "WorkerConfig", "load_mount_plan"]
