"""Privacy arithmetic of DP-SGD without torch, shared by the operator, the trainer and the CLI.

Every figure errs in the safe direction: the sampling rate, the noise multiplier and epsilon are
rounded up. Adjacency is add/remove of one privacy unit unless a name says otherwise.

`draws`           integers of the Poisson draw, its batch sizes, leases and reserve
`event`           one draw as the accountants see it
`rdp`             Rényi DP of the Poisson-subsampled Gaussian, standard library only
`pld`             privacy loss distributions by dp-accounting (seconds to import)
`process`         the same in a warm helper process, for callers that must not wait
`upper_bound`     a bound of epsilon that is there at once
`limits`          what the accountants accept
`plan`            the frozen plan of a job
`report_figures`  what the plan means to a person in the data
"""
