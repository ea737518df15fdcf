"""The orchestrator. What makes its sessions is this module's ``AmplifierSession`` at the moment it is needed."""

from amplifier_orchestrator_foreman_worker.config import WorkerConfig, load_mount_plan
from shopfloor.faces.foreman import orchestrator as _orchestrator
from shopfloor.faces.foreman.session import default_session

AmplifierSession = default_session


class ForemanWorkerOrchestrator(_orchestrator.ForemanWorkerOrchestrator):
    """See :class:`shopfloor.faces.foreman.orchestrator.ForemanWorkerOrchestrator`."""

    def _session_class(self) -> _orchestrator.SessionClass:
        return AmplifierSession


__all__ = ["AmplifierSession", "ForemanWorkerOrchestrator", "WorkerConfig", "load_mount_plan"]
