"""The security rule for reward expressions that somebody else wrote: which names they may use.

A reward's name may carry a source, as in "clipscore:/some/directory" or "module:function". Loading such a name reads
files or imports code, so text from a client of the server or a visitor of the web page must never reach the loader
unless every name in it was allowed beforehand by whoever started the program.
"""

from __future__ import annotations

from collections.abc import Collection

from nulltta.errors import InvalidValue
from nulltta.rewards.expression import Name, Node, is_colour, names, parse_untrusted

COLOUR = Name("target-colour")
"""The one reward with a harmless argument: if it is allowed, so is "target-colour:#RRGGBB" with any colour."""


def parse_allowed(expression: str, allowed: Collection[Name]) -> Node:
    """Parse a reward expression from an untrusted source.

    Args:
        expression: the text, as it was received.
        allowed: the names that may be used, with their sources where they have any. A name without a source does not
            allow the same name with one.

    Returns:
        The parsed expression, every name of which is allowed.

    Raises:
        InvalidValue: if the expression is malformed, is too long, or uses a name that is not allowed.
    """
    node = parse_untrusted(expression)
    for name in names(node):
        if not _is_allowed(name, allowed):
            known = ", ".join(f"{each}:#RRGGBB" if each == COLOUR else str(each) for each in allowed)
            raise InvalidValue(f"reward '{name}' is not offered here: choose among {known}")
    return node


def _is_allowed(name: Name, allowed: Collection[Name]) -> bool:
    """Whether the name itself is allowed, or is a colour where colours are; the colourless COLOUR cannot be loaded."""
    return (name in allowed and name != COLOUR) or (COLOUR in allowed and is_colour(name))
