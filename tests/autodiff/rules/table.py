"""All cases of the rules."""

from tests.autodiff.rules.cases import CASES as ELEMENTS
from tests.autodiff.rules.linear_cases import LINEAR

CASES = {**ELEMENTS, **LINEAR}
