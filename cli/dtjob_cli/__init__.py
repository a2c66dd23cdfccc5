"""`dtjob`: train with differential privacy from a job's manifest, on one machine.

`__main__`             the process, from its first moments on
`main`                 the command line: every command, argument and option
`commands`             one module for each command: what it does with them
`manifests`            a manifest from a file to a validated job
`planning`             what the operator would compute for it
`runs`                 a run on this machine: its directory, its workers, how it goes on and ends
`kubectl`              the cluster, as the user's own kubectl reaches it
`interrupts`           Ctrl-C, raised or counted
`display`              what a run shows while it goes
`standard_streams`     output to whatever the standard streams are
`privacy_report`       the privacy report of a job as an object
`privacy_report_text`  the same as people read it
`errors`               how every command fails
"""
