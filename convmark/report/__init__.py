"""Tables and pages, made from records only."""

import sys

from convmark import CalledPackage

sys.modules[__name__].__class__ = CalledPackage  # `convmark.report(...)` is a function too
