"""``dtjob``: train with differential privacy from a job's manifest, on one machine.

``__main__``     the process, from its first moments on
``main``         the command line: every command, argument and option
``commands``     one module for each command: what it does with them
``manifests``    a manifest from a file to a validated job
``planning``     what the operator would compute for it
``runs``         the directory of a local run: made, found again, held, compared
``resume``       whether an earlier run may go on
``local``        plays the operator on one machine: workers started, watched, stopped
``kubectl``      the cluster, as the user's own kubectl reaches it
``ports``        free ports and taken ones
``interrupts``   Ctrl-C, raised or counted
``verdict``      how a run ended
``display``      what a run shows while it goes
``report``       the privacy report of a run, ``report_text`` its words
``errors``       how every command fails
"""
