"""`python -m api`, which is `penstock api`."""

from api.commands.main import main

if __name__ == "__main__":
    main()
