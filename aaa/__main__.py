"""``python -m aaa`` is ``aaa``, so that torchrun and srun can start it."""

from aaa.cli import main

if __name__ == "__main__":
    main()
