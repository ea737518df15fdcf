"""The foreman and its crew under the name that programs for Amplifier import."""

from amplifier_orchestrator_foreman_worker.config import WorkerConfig, load_mount_plan
from amplifier_orchestrator_foreman_worker.orchestrator import ForemanWorkerOrchestrator

__all__ = ["ForemanWorkerOrchestrator", "WorkerConfig", "load_mount_plan"]
