"""The command line: what every job shares, and the `medray` console command.

    python jobs/suts.py                          train with the smoke preset
    python jobs/suts.py predict --help           any other command: predict, evaluate, claim, report, describe
    medray list                                  every system there is
    medray describe suts                         one of them in words
    medray run suts train --preset demo          the same as its job

Exit codes: 0 done, 1 a crash (with its traceback) or a claim that does not hold, 2 something the user can mend (one
sentence on standard error), 130 stopped by Ctrl-C.
"""

from medray.cli.app import main, run

__all__ = ["main", "run"]
