"""The workers of a crew, and mount plans."""

from shopfloor.faces.foreman.config import WorkerConfig, load_mount_plan

__all__ = ["WorkerConfig", "load_mount_plan"]
