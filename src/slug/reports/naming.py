"""The order of methods in tables."""

from collections.abc import Iterable

from slug import methods, schema


def in_order(found: Iterable[str]) -> list[str]:
    """The methods that occur, in the registry's order: the unedited model first, unknown methods last.

    A method's edits in several rounds, or as an adapter, follow the method.
    """
    known = [schema.ORIGINAL, *methods.names()]

    def place(method: str) -> tuple[int, bool, bool, str]:
        base = method.removesuffix(schema.ADAPTER)
        adapter, rounds = base != method, base.endswith(schema.ROUNDS)
        base = base.removesuffix(schema.ROUNDS)
        return known.index(base) if base in known else len(known), rounds, adapter, method

    return sorted(set(found), key=place)
