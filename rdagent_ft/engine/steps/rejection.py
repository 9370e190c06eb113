"""Problems of a candidate as the failure that ends its loop; shared by the rungs of step `code`."""

from __future__ import annotations

from collections.abc import Sequence

from rdagent_ft.errors import Problem
from rdagent_ft.reporting.stage_records import Failure


def rejected(problems: Sequence[Problem]) -> Failure:
    """Return the failure of a candidate with at least one problem; the first one names its class."""
    first = problems[0]
    return Failure(
        failure_class=first.problem_class,
        blame="candidate",
        message="; ".join(problem.render() for problem in problems),
        fix=first.fix,
    )
