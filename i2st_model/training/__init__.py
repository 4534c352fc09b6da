"""Training by episodes, from shards to a checkpoint.

config       every setting of a run          run          the steps, and what is kept of them
setup        what a run is built from        step         one step of the optimizer
pools        which clips a step sees         data         those clips, their masks, flips
schedules    learning rates                  validation   accuracy on fixed val episodes
state        what a killed run goes on from  resume       whether a folder may be gone on with
"""
