"""Reports: what the command service is told of instances, when it is there.

Of each instance the newest report counts. It is sent when it differs from what was told last, by transitions that the
command service takes; while that is away it is kept, and replaced by newer ones.
"""

import asyncio
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import structlog

from keelson.agent.contact import REFUSED_PAUSE_S, Contact, describe, is_refusal
from keelson.agent.transitions import Status, between
from keelson.client import Client, ClientError, ProblemError
from keelson.client.commands.instance import ReportStatus

# What stands however often it is sent: an instance that is not (any more), or is said to be what it cannot become.
_FINAL = frozenset({400, 404, 422})
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 5.0
# By what the command service is led to a status from one that is not known here, tried in this order.
_DETOURS: tuple[tuple[Status, ...], ...] = ((), ("booting",), ("failed", "booting"))
# An answer of the service itself, which is there, and cannot take this report for now.
_FAULT = 500
_UNSEEN = "it was started again while that could not be told"

_log = structlog.get_logger()


class Reports:
    """Tells the command service the newest report of each instance: once, in order, for as long as it takes."""

    def __init__(self, client: Client, contact: Contact) -> None:
        self._client = client
        self._contact = contact
        self._newest: dict[str, ReportStatus] = {}
        self._told: dict[str, ReportStatus] = {}
        self._failures: dict[str, ReportStatus] = {}
        self._failing: dict[str, ReportStatus] = {}
        self._woken = asyncio.Event()

    @property
    def pending(self) -> Sequence[str]:
        """The instances of which there is something to tell."""
        return [key for key, report in self._newest.items() if self._told.get(key) != report]

    def tell(self, report: ReportStatus) -> None:
        """Take the newest report of an instance; it says all there is to say. What is not new is not told."""
        self._newest[report.instance_id] = report
        if report.status == "failed":
            self._failures[report.instance_id] = report
        self._woken.set()

    def forget(self, instance_id: str) -> None:
        """Tell nothing more of an instance, nor what is pending of it."""
        for each in (self._newest, self._told, self._failures, self._failing):
            each.pop(instance_id, None)

    def has_said(self, instance_id: str, status: Status) -> bool:
        """Whether the newest report of an instance says this."""
        newest = self._newest.get(instance_id)
        return newest is not None and newest.status == status

    def keep_only(self, instance_ids: AbstractSet[str]) -> None:
        """Forget all other instances."""
        for instance_id in self._newest.keys() - instance_ids:
            self.forget(instance_id)

    def doubt(self) -> None:
        """Take nothing for told any more, since the log is another one; all is told again."""
        self._told.clear()
        self._woken.set()

    async def run(self) -> None:
        """Tell whatever there is to tell, until cancelled."""
        pause_s = _FIRST_PAUSE_S
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                for instance_id in self.pending:
                    await self._tell_in_turn(instance_id)
            except ClientError as error:
                await asyncio.sleep(REFUSED_PAUSE_S if is_refusal(error) else pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                self._woken.set()
            else:
                pause_s = _FIRST_PAUSE_S

    async def _tell_in_turn(self, instance_id: str) -> None:
        """Tell the newest report of an instance; if that fails, all others have their turn before it is tried again.

        So one that is never taken holds up no other for longer than a pause. Raises ClientError.
        """
        try:
            await self._tell(instance_id)
        except ClientError as error:
            if instance_id in self._newest:
                self._newest[instance_id] = self._newest.pop(instance_id)
            self._note(instance_id, error)
            raise

    def _note(self, instance_id: str, error: ClientError) -> None:
        """Say what is the matter, once: with the service, or with this report."""
        if not isinstance(error, ProblemError) or error.status != _FAULT:
            self._contact.lost(error)
            return
        self._contact.made()
        newest = self._newest.get(instance_id)
        if newest is not None and self._failing.get(instance_id) != newest:
            self._failing[instance_id] = newest
            _log.warning("report_failed", instance_id=instance_id, why=describe(error), consequence="it is tried again")

    async def _tell(self, instance_id: str) -> None:
        """Tell the newest report of an instance, or give it up if it is refused on every way. Raises ClientError."""
        report = self._newest.get(instance_id)
        if report is None:  # forgotten meanwhile
            return
        refusal = None
        for way in self._ways(report):
            refusal = await self._send_all(instance_id, [self._on_the_way(report, each) for each in way] + [report])
            if refusal is None:
                return
        _log.warning("report_refused", instance_id=instance_id, status=report.status, why=describe(refusal))  # type: ignore[arg-type]
        self._keep_told(instance_id, report)

    def _ways(self, report: ReportStatus) -> Sequence[tuple[Status, ...]]:
        """Give the statuses to tell first, where what was told last does not lead to the report; guesses at the end."""
        told = self._told.get(report.instance_id)
        known = None if told is None else between(told.status, report.status)
        return _DETOURS if not known else (known, *_DETOURS)

    def _on_the_way(self, report: ReportStatus, status: Status) -> ReportStatus:
        if status != "failed":
            return ReportStatus(instance_id=report.instance_id, status=status)
        unseen = ReportStatus(instance_id=report.instance_id, status="failed", reason_code="exited", message=_UNSEEN)
        return self._failures.get(report.instance_id, unseen)

    async def _send_all(self, instance_id: str, reports: Sequence[ReportStatus]) -> ProblemError | None:
        """Send them in order; give the refusal, if one of them stands refused."""
        for report in reports:
            try:
                await self._client.send(report, reason="the node's agent saw it")
            except ProblemError as error:
                if error.status not in _FINAL:
                    raise
                self._contact.made()
                return error
            self._contact.made()
            self._keep_told(instance_id, report)
            _log.debug("report_told", instance_id=instance_id, status=report.status)
        return None

    def _keep_told(self, instance_id: str, report: ReportStatus) -> None:
        if instance_id in self._newest:
            self._told[instance_id] = report
