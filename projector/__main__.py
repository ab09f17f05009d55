"""`python -m projector`, which is `penstock projector`."""

from projector.commands.main import main

if __name__ == "__main__":
    main()
