"""``python -m launcher`` is ``millrace``."""

from launcher.entry import main

if __name__ == "__main__":
    main()
