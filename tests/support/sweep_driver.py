"""`python -m tuning.sweep`, with the toy systems among the registered ones."""

from toy_populations import climbing
from toy_sweeps import registered

from tuning.sweep import main

if __name__ == "__main__":
    with registered(), climbing():
        raise SystemExit(main())
