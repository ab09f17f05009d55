"""`python -m streams`, which is `penstock streams`."""

from streams.commands.main import main

if __name__ == "__main__":
    main()
