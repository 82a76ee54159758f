"""``python -m launcher`` is ``millrace``."""

from launcher.cli import main

if __name__ == "__main__":
    main()
