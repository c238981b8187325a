"""Wrong versions of every derivative in the library, and whether `gradcheck` finds them: a check must be able to fail.

A *mutant* is one mistake planted in one rule: the derivative of one operation with respect to one argument, on one
backend. Every mutant must be *killed* (rejected), but for those that are declared equal to the right rule; and no right
rule may be called wrong.
"""

from tinyllm.testing.mutants.command import main, run
from tinyllm.testing.mutants.report import MutantReport

__all__ = ["MutantReport", "main", "run"]
