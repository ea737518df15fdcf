"""The composition root and the façade: the one place that knows the concrete drivers."""

from shopfloor.app.doctor import Finding
from shopfloor.app.floor import Shopfloor
from shopfloor.app.housekeeping import Dropped
from shopfloor.app.intake import PlanView, Wish

__all__ = ["Dropped", "Finding", "PlanView", "Shopfloor", "Wish"]
