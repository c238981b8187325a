"""Where a training step spends its time: each operation, what it cost, how near that is to the machine's limits."""

from tinyllm.profile.costs import Call, Cost, backward_cost, forward_cost
from tinyllm.profile.limits import Limits
from tinyllm.profile.recorder import Recorder
from tinyllm.profile.run import profile_training
from tinyllm.profile.steps import Profile, Row, profile

__all__ = [
    "Call",
    "Cost",
    "Limits",
    "Profile",
    "Recorder",
    "Row",
    "backward_cost",
    "forward_cost",
    "profile",
    "profile_training",
]
