"""All mutants, in the order of what they guard against."""

import re

from mutation import of_agent, of_command, of_feed, of_log, of_projector, of_scheduler, of_service, of_streams
from mutation.mutant import Mutant


def _place(mutant: Mutant) -> tuple[int, str]:
    match = re.fullmatch(r"F(\d+)(\w?)", mutant.number)
    if match is None:
        raise ValueError(f"{mutant.number} is no failure's number")
    return int(match[1]), match[2]


MUTANTS: tuple[Mutant, ...] = tuple(
    sorted(
        (
            *of_agent.MUTANTS,
            *of_log.MUTANTS,
            *of_command.MUTANTS,
            *of_feed.MUTANTS,
            *of_projector.MUTANTS,
            *of_scheduler.MUTANTS,
            *of_service.MUTANTS,
            *of_streams.MUTANTS,
        ),
        key=_place,
    )
)
