"""Whether two things are of one world: a model or an agent, and what it is to see and do."""

from worldmodel.errors import UserError


def check_same(
    who: str,
    seen: tuple[int, ...],
    taken: list[str],
    where: str,
    frame_shape: tuple[int, ...],
    action_meanings: list[str],
) -> None:
    """Raise `UserError` unless a world, `where`, has the frames and actions that a model or an agent, `who`, knows."""
    if tuple(seen) != tuple(frame_shape):
        raise UserError(f"The {who} was trained on frames {list(seen)}, and {where} shows {list(frame_shape)}.")
    if not same_actions(taken, action_meanings):
        raise UserError(
            f"The {who} takes {len(taken)} actions ({', '.join(taken)}), and {where} has {len(action_meanings)} "
            f"({', '.join(action_meanings)})."
        )


def same_actions(some: list[str], others: list[str]) -> bool:
    """Whether they are as many, in the same order; what is known by number alone may have any names."""
    numbered = any(all(name.lstrip("-").isdecimal() for name in names) for names in (some, others))
    return some == others or (len(some) == len(others) and numbered)
