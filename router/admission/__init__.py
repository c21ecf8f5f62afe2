"""Who may begin: limits of a model, and a fair queue before each decode pool."""

from router.admission.admission import Admission
from router.admission.capacity import PoolCapacity
from router.admission.counts import ModelCounts
from router.admission.refusal import Reason
from router.admission.slot import Slot
from router.pool_figures import PoolFigures

__all__ = ["Admission", "ModelCounts", "PoolCapacity", "PoolFigures", "Reason", "Slot"]
