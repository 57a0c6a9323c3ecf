"""Whether a service does what its OpenAPI document says: examples made from it, sent to the service as it runs.

The examples are the same in every run. Those that fit the document name, in a fair part, what there really is; those
that do not fit must be refused. https://schemathesis.readthedocs.io
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import CheckContext, GenerationMode, Response
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

Operation = schemathesis.schemas.APIOperation[Any, Any, Any, Any]
Case = schemathesis.Case[Any]

SETTINGS = settings(
    derandomize=True,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)

# Refusals that a document cannot foresee of what fits it (docs/decisions/0010-openapi.md).
BEYOND_SCHEMAS = frozenset({"bad_cursor", "reason_required", "not_supported"})
RULES_BETWEEN_FIELDS = frozenset(
    {
        "two ports have the same name",
        "health names a port that the process does not have",
        "only what is ready has endpoints",
        "what failed has a reason_code",
        "exactly one of deploy_id, release_id and position says what to go back to",
    }
)
NOT_YET = 504

# What there is: the ids of each kind, by prefix, and names of other parameters with values that something has.
Known = Mapping[str, Sequence[Any]]

Draw = Callable[[st.SearchStrategy[Any]], Any]


def no_defect(_ctx: CheckContext, response: Response, _case: Case) -> None:
    """Check that the service answers: a position that is not reached in time is the only thing that it may lack."""
    assert response.status_code < 500 or response.status_code == NOT_YET, response.text


def fitting_is_not_unfit(_ctx: CheckContext, response: Response, case: Case) -> None:
    """Check that what fits the document is not refused as if it did not."""
    if _mode(case) is GenerationMode.POSITIVE and response.status_code == 400:
        problem = response.json()
        details = {each["detail"] for each in problem.get("errors", ())}
        assert problem["code"] in BEYOND_SCHEMAS or details & RULES_BETWEEN_FIELDS, response.text


CHECKS: list[Any] = [
    no_defect,
    fitting_is_not_unfit,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


class Contract:
    """A service's document, and the service that is held to it; `statuses` counts what came back."""

    def __init__(self, document: dict[str, Any], url: str, token: str, known: Known) -> None:
        self._schema = schemathesis.openapi.from_dict(document)
        self._schema.config.generation.update(with_security_parameters=False)
        self._url = url
        self._token = token
        self._known = known
        self.statuses: dict[tuple[str, int], int] = {}

    def find_violations(self, *, examples: int, only: str = "") -> dict[str, str]:
        """Send so many examples, fitting and unfit, to each operation whose label ends so; give what is wrong."""
        found = {}
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {self._token}"
            for result in self._schema.get_all_operations():
                assert isinstance(result, Ok), result
                operation = result.ok()
                if not operation.label.endswith(only):
                    continue
                for mode in GenerationMode:
                    try:
                        self._try(operation, mode, session, examples)
                    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - whatever it is, it is looked for
                        found[f"{operation.label}, {mode.value}"] = "\n".join(_lines(error))
        return found

    def _try(self, operation: Operation, mode: GenerationMode, session: requests.Session, examples: int) -> None:
        """Send examples of one kind; raises what the first one that went wrong raised, made as small as it gets."""
        if mode is GenerationMode.NEGATIVE and not _can_be_unfit(operation):
            return

        @settings(SETTINGS, max_examples=examples)
        @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
        def send(case: Case, data: st.DataObject) -> None:
            _write_as_sent(case)
            if mode is GenerationMode.POSITIVE:
                _name_what_is_there(case, data.draw, self._known)
            response = case.call(base_url=self._url, session=session, timeout=30)
            key = (operation.label, response.status_code)
            self.statuses[key] = self.statuses.get(key, 0) + 1
            case.validate_response(response, checks=CHECKS)

        send()


def _mode(case: Case) -> GenerationMode | None:
    return case.meta.generation.mode if case.meta is not None else None


def _can_be_unfit(operation: Operation) -> bool:
    """Say whether anything is demanded of a request: not where only an X-Request-Id of any text may be given."""
    return bool(operation.body or operation.query or operation.path_parameters or len(operation.headers) > 1)


def _write_as_sent(case: Case) -> None:
    """Write headers in UTF-8, as this API has them, and whole numbers without a fraction, as it wants them."""
    case.headers.update({name: value.encode() for name, value in case.headers.items() if isinstance(value, str)})
    case.body = _whole(case.body)


def _whole(value: Any) -> Any:
    match value:
        case float() if value.is_integer():  # which an int is exactly, however large
            return int(value)
        case dict():
            return {name: _whole(each) for name, each in value.items()}
        case list():
            return [_whole(each) for each in value]
        case _:
            return value


def _name_what_is_there(case: Case, draw: Draw, known: Known) -> None:
    """Put ids, names and positions that exist in the place of those that were made up, three times out of four each."""
    noun = case.operation.path.split("/")[2].removesuffix("s") if case.operation.path.count("/") > 1 else ""
    for name in list(case.path_parameters):
        _replace(case.path_parameters, name, noun if name == "id" else "project", draw, known)
    for name in list(case.query):
        _replace(case.query, name, name.removesuffix("_id"), draw, known)
    if isinstance(case.body, dict):
        for command, fields in _commands_in(case):
            for name in list(fields):
                # A command that creates would mostly be refused an id that is taken.
                if command != f"{name.removesuffix('_id')}.create":
                    _replace(fields, name, name.removesuffix("_id"), draw, known)
    if "wait" in case.query:
        case.query["wait"] = 1
    if "min_position" in case.query:
        case.headers["Prefer"] = b"wait=0"


def _commands_in(case: Case) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the names and the fields of the commands that a body holds."""
    body: Any = case.body
    if case.operation.path.endswith("/commands"):
        yield from ((each["name"], each["data"]) for each in body["commands"])
    else:
        yield case.operation.path.rpartition("/")[2], body


def _replace(container: Any, name: str, kind: str, draw: Draw, known: Known) -> None:
    if known.get(kind) and draw(st.integers(0, 3)):
        container[name] = draw(st.sampled_from(known[kind]))


def _lines(error: BaseException) -> Iterator[str]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _lines(each)
    else:
        yield f"{type(error).__name__}: {error}"
