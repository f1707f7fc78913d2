"""``python -m hf_challenger.explain``."""

from .command import main

if __name__ == "__main__":
    main()
