"""A data set is tried record by record, for the eyes of its owner."""

#: Why a record is bad by which training does not go on: `[i]` raises what is no Exception.
ENDS_THE_JOB = "ends the job"
#: The same of one by which the process that reads it dies.
ENDS_THE_PROCESS = "ends the process"
