"""The composition root and the façade: the one place that knows the concrete drivers."""

from shopfloor.app.doctor import Finding
from shopfloor.app.floor import Shopfloor
from shopfloor.app.housekeeping import Dropped
from shopfloor.app.intake import PlanView, Wish
from shopfloor.app.outcomes import Outcome
from shopfloor.prompts import PromptOrder

__all__ = ["Dropped", "Finding", "Outcome", "PlanView", "PromptOrder", "Shopfloor", "Wish"]
