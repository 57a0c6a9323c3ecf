"""All mutants, in the order of what they guard against."""

import re

from mutation import of_agent, of_command, of_feed, of_log, of_projector, of_service
from mutation.mutant import Mutant


def _place(mutant: Mutant) -> tuple[int, str]:
    match = re.fullmatch(r"F(\d+)(\w?)", mutant.number)
    if match is None:
        raise ValueError(f"{mutant.number} is no failure's number")
    return int(match[1]), match[2]


MUTANTS: tuple[Mutant, ...] = tuple(
    sorted(
        (
            *of_log.MUTANTS,
            *of_command.MUTANTS,
            *of_feed.MUTANTS,
            *of_projector.MUTANTS,
            *of_service.MUTANTS,
            *of_agent.MUTANTS,
        ),
        key=_place,
    )
)
