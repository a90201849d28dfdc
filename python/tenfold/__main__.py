"""`python -m tenfold program.py …` runs a program whose `multiprocessing` means tenfold."""

__all__ = []

if __name__ == "__main__":
    from tenfold import _run

    _run.main()
