"""A suite of laws to hand over: `tinyllm check FILE.py` and ``pytest --pyargs tinyllm.testing.suite.pytest_module``.

See `README.md` beside this file. It runs the file in a process with limits; it is not a security boundary.
"""

from tinyllm.testing.suite.answer import Answer
from tinyllm.testing.suite.command import main
from tinyllm.testing.suite.outcome import Broken, NotApplicable
from tinyllm.testing.suite.table import law

__all__ = ["Answer", "Broken", "NotApplicable", "law", "main"]
