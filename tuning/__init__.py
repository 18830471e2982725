"""Sweeps over the settings of any system: Ray Tune runs the trials, Optuna decides what to try next."""
