"""`python -m tuning.sweep`, with the toy system among the registered ones."""

from toy_sweeps import registered

from tuning.sweep import main

if __name__ == "__main__":
    with registered():
        raise SystemExit(main())
