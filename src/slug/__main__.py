"""python -m slug: the command `slug`."""

from slug import commands

if __name__ == "__main__":
    commands.main()
