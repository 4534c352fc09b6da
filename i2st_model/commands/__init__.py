"""The commands of stage two; `pipeline.commands` says what commands do and share.

One file per command or group of commands; `cli` gives each its name. Modules here import at their
top only what `i2st --help` may cost; the functions import the rest.
"""
