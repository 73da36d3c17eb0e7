"""``python -m promptfuse``, the same as the command ``promptfuse``."""

from promptfuse.cli.main import main

if __name__ == "__main__":
    main()
