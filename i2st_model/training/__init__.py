"""Training by episodes, from shards to a checkpoint.

config       every setting of a run          run            one run, begun or gone on with
learner      a head on a source of clips      trainer        its steps
learners     which learner a run has         keeper         what is kept of them
head         what learns on features         cached_learner on features that do not change
network_head I2ST                            method_head    any method
pool_losses  what heads tell a step          cached_clips   those features, mirrored
run_folder   made, held, named, removed      step_log       a line per step
reports      what a caller is told           step           losses, mean gradient, update
setup        what a run is built from        step_pools     which pools a step sees
pools        clips and episodes of a pool    data           those clips, their masks, flips
ranks        processes that share a run      gradients      sums that no order shows in
ahead        the next batch, in a thread     precision      bfloat16, compilation
schedules    learning rates                  validation     accuracy on fixed val episodes
state        what a killed run goes on from  resume         whether a folder may be gone on with
finite       what stops a step               replay         that step again, under a lens
initial      weights of another run          outcome        what the checkpoint says
"""
