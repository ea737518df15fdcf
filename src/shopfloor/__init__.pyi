from shopfloor._version import __version__ as __version__
from shopfloor.app import Outcome as Outcome
from shopfloor.app import PromptOrder as PromptOrder
from shopfloor.app import Shopfloor as Shopfloor
from shopfloor.app.orders import Ends as Ends
from shopfloor.app.talks import Talk as Talk
from shopfloor.app.talks import Talks as Talks
from shopfloor.config.settings import Settings as Settings
from shopfloor.domain.errors import Conflict as Conflict
from shopfloor.domain.errors import NotFound as NotFound
from shopfloor.domain.errors import Refused as Refused
from shopfloor.domain.errors import ShopfloorError as ShopfloorError
from shopfloor.domain.errors import UsageError as UsageError
from shopfloor.domain.events import Event as Event
from shopfloor.domain.events import stamp_time as stamp_time
from shopfloor.domain.order import Deliverable as Deliverable
from shopfloor.domain.order import Order as Order
from shopfloor.domain.order import Record as Record
from shopfloor.domain.order import State as State
from shopfloor.domain.report import Report as Report
from shopfloor.ports import Profile as Profile

__all__ = [
    "Conflict",
    "Deliverable",
    "Ends",
    "Event",
    "NotFound",
    "Order",
    "Outcome",
    "Profile",
    "PromptOrder",
    "Record",
    "Refused",
    "Report",
    "Settings",
    "Shopfloor",
    "ShopfloorError",
    "State",
    "Talk",
    "Talks",
    "UsageError",
    "__version__",
    "stamp_time",
]
