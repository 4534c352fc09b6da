"""The commands of stage one, and what all commands share: flags, printing and exit status.

Only `cli` and these packages print, take flags or decide an exit status; the other modules return
values and raise errors of `pipeline.errors`. There is one file per command or group of commands and
one function per command; `cli` gives it its name. Modules here import at their top only what
`i2st --help` may cost; the functions import the rest.
"""
