"""The commands of `rkllama fleet`, in the order of its help."""

from .configuration import init, update
from .group import app
from .pull import pull
from .status import doctor, status

__all__ = ["app", "doctor", "init", "pull", "status", "update"]
