"""The library's errors and warnings. Every message says what was found, what was expected, and the way out."""

from collections.abc import Iterable


class ChallengerError(ValueError):
    """Bad input to hf_challenger."""


class ChallengerWarning(UserWarning):
    """Something that the user should know, but that training survives."""


class NoEffectWarning(ChallengerWarning):
    """An option is set but changes nothing in this run."""


def check_choice(name: str, value: object, known: Iterable[str]) -> None:
    """Raise :class:`ChallengerError` unless ``value`` is one of the ``known`` names; the error lists them."""
    known = list(known)
    if value not in known:
        raise ChallengerError(f"{name}={value!r} is unknown. Choose one of: {', '.join(map(repr, known))}.")


class NotChallengeable(ChallengerError):
    """A model or a task that the challenge does not cover. With default options it is trained as ``Trainer`` trains it."""
