"""What a setting may be, in words: for whoever gave another value, and for the table in the docs."""

from typing import Any

from msgspec import inspect as types


def expected_of(type_: Any) -> str:
    """Say what values a field of this type takes; raises TypeError for a kind that no setting has used yet."""
    info = types.type_info(type_)
    kind, extra = (info.type, info.extra or {}) if isinstance(info, types.Metadata) else (info, {})
    if "expected" in extra:
        return str(extra["expected"])
    unit = f" of {extra['unit']}" if "unit" in extra else ""
    match kind:
        case types.LiteralType():
            return "one of " + ", ".join(map(str, kind.values))
        case types.IntType():
            return "a whole number" + unit + _range(kind)
        case types.FloatType():
            return "a number" + unit + _range(kind)
        case types.StrType():
            return "text" if (kind.min_length or 1) == 1 else f"text of at least {kind.min_length} characters"
    raise TypeError(f"there are no words for settings of {kind}")


def _range(kind: types.IntType | types.FloatType) -> str:
    low = f"over {kind.gt:g}" if kind.gt is not None else f"from {kind.ge:g}" if kind.ge is not None else ""
    high = f"up to {kind.le}" if kind.le is not None else ""
    return "".join(f" {bound}" for bound in (low, high) if bound)
