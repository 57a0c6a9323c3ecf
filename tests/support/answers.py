"""Every answer that clients get, noted and held against what the API documents."""

from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec

# The codes that a sound client may be answered by, whatever fails; nothing else is an answer to it.
REFUSED = {
    "name_taken": 409,
    "in_use": 409,
    "concurrent_change": 409,
    "not_found": 404,
    "invalid_transition": 422,
    "wrong_app": 422,
    "unknown_process": 422,
    "unknown_port": 422,
    "route_would_break": 422,
    "quota_exceeded": 422,
    "last_owner": 422,
    "cannot_restore": 422,
    "no_capacity": 422,
    "node_not_active": 422,
    "instance_stopped": 422,
}
LATE = {"not_yet": 504}
# What a 503 says while the database fails: nothing else is a cause of it then.
CAUSES = frozenset(
    {
        "The database cannot be reached or is too slow; nothing was promised",
        "The log could not be written in time; repeat with the same Idempotency-Key",
    }
)


@dataclass
class Answers:
    """What came back, counted by service and by status or a problem's code; `faults` are answers that should not be."""

    services: dict[int, str]
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    @property
    def trace(self) -> aiohttp.TraceConfig:
        """What makes a session note its answers here."""
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(self._note)
        return trace

    def of(self, service: str, what: str) -> int:
        """How many answers of a kind a service gave."""
        return self.counts[service, what]

    @property
    def good(self) -> int:
        """How many requests were answered by 200."""
        return sum(number for (_, what), number in self.counts.items() if what == "200")

    async def _note(
        self, _session: aiohttp.ClientSession, _context: SimpleNamespace, end: aiohttp.TraceRequestEndParams
    ) -> None:
        service = self.services[end.url.port or 0]
        body = await end.response.read()
        what, fault = judge(end.url.path, end.response.status, end.response.headers, body)
        self.counts[service, what] += 1
        if fault:
            self.faults.append(f"{end.method} {end.url}: {end.response.status} {body!r}: {fault}")


def judge(path: str, status: int, headers: Any, body: bytes) -> tuple[str, str]:
    """Name an answer by its status or its problem's code, and say what is wrong with it, if anything is."""
    if status == 200 or path == "/readyz":
        return str(status), "" if status in (200, 503) else "readiness is 200 or 503"
    if headers.get("Content-Type") != "application/problem+json":
        return str(status), "it is no problem"
    problem = msgspec.json.decode(body)
    code = problem["code"]
    if code == "unavailable":
        return code, _fault_of_unavailable(status, headers, problem["detail"])
    known = status == problem["status"] == (REFUSED | LATE).get(code)
    return code, "" if known else "no such answer is documented for a sound request"


def _fault_of_unavailable(status: int, headers: Any, detail: str) -> str:
    if status != 503 or not headers.get("Retry-After", "").isdecimal():
        return "503 has a Retry-After"
    return "" if detail in CAUSES else "that is no cause of a 503 here"
