"""What a user of the example scripts reads on the console."""


def idle_warnings(stderr: str) -> list[str]:
    """Lines that warn of what a user cannot act on: all but this library's own, which name a way out."""
    return [line for line in stderr.splitlines() if "Warning" in line and "ChallengerWarning" not in line]
