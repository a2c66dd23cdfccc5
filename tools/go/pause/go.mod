module dtjob.dev/tools/go/pause

go 1.24
