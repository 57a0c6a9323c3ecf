"""Ids of instances that whoever plans comes to: this is what makes placing twice impossible."""

import hashlib

# Of TypeIDs: Crockford's base 32, and 26 digits of 5 bits for 128.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_DIGITS = 26


def instance_id(env_id: str, process: str, number: int) -> str:
    """Give the id of a process's instance by its number, counted from 1; the next one has the first that is free.

    An id is taken once. So an allocation under the next one is a compare-and-set on which have been taken: it succeeds
    only if whoever planned it had seen all before it, and of two who plan the same one alone does. A number is free
    before one that is taken only where a failover lost its allocation, and the later one was sent again.
    """
    digest = hashlib.sha256(f"{env_id}/{process}/{number}".encode()).digest()
    value = int.from_bytes(digest[:16])
    return "instance_" + "".join(_ALPHABET[value >> 5 * place & 31] for place in reversed(range(_DIGITS)))
